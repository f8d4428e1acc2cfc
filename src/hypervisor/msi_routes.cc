#include "hypervisor/msi_routes.h"

#include "base/format.h"

namespace crosvm {

MsiRoutes::MsiRoutes(Vm& vm, std::vector<IrqRoute> fixed, uint32_t first_gsi, uint32_t last_gsi)
    : vm_(vm), fixed_(std::move(fixed)), first_gsi_(first_gsi), last_gsi_(last_gsi) {}

Result<uint32_t> MsiRoutes::allocate(const MsiMessage& message) {
  std::lock_guard lock(mutex_);
  uint32_t gsi = first_gsi_;
  for (const auto& [taken, route] : messages_) {  // in order: the first gap
    if (taken != gsi) break;
    ++gsi;
  }
  if (gsi > last_gsi_) {
    return fail(Error(
        std::errc::no_space_on_device,
        format_text("all {} interrupt routes for MSIs are in use", last_gsi_ - first_gsi_ + 1)));
  }
  messages_.emplace(gsi, message);
  Result<void> pushed = push();
  if (!pushed) {
    messages_.erase(gsi);
    return fail(std::move(pushed).error());
  }
  return gsi;
}

Result<void> MsiRoutes::update(uint32_t gsi, const MsiMessage& message) {
  std::lock_guard lock(mutex_);
  auto found = messages_.find(gsi);
  CHECK(found != messages_.end());
  MsiMessage& now = found->second;
  if (now.address == message.address && now.data == message.data) return {};
  const MsiMessage before = std::exchange(now, message);
  Result<void> pushed = push();
  if (!pushed) now = before;
  return pushed;
}

void MsiRoutes::release(uint32_t gsi) {
  // The hypervisor's table keeps the route until it changes next: nothing signals the GSI any more,
  // and a table costs the guest a pause.
  std::lock_guard lock(mutex_);
  CHECK(messages_.erase(gsi) == 1);
}

Result<void> MsiRoutes::push() {
  std::vector<IrqRoute> table = fixed_;
  table.reserve(fixed_.size() + messages_.size());
  for (const auto& [gsi, message] : messages_) table.push_back({.gsi = gsi, .target = message});
  return vm_.set_irq_routes(table);
}

}  // namespace crosvm
