#include "platform/bus.h"

#include <iterator>
#include <limits>

#include "base/format.h"

namespace crosvm {

Result<void> Bus::insert(uint64_t base, uint64_t length, std::shared_ptr<BusDevice> device) {
  CHECK(device != nullptr);
  const std::string_view label = device->label();
  if (length == 0 || length - 1 > std::numeric_limits<uint64_t>::max() - base) {
    return fail(Error::invalid(format_text(
        "{}: device {} at {:#x} with length {:#x} is not a range", name_, label, base, length)));
  }
  std::unique_lock guard(mutex_);
  auto next = entries_.lower_bound(base);
  auto clash = entries_.end();
  if (next != entries_.end() && next->first - base < length) clash = next;
  if (next != entries_.begin()) {
    auto before = std::prev(next);
    if (base - before->first < before->second.length) clash = before;
  }
  if (clash != entries_.end()) {
    return fail(
        Error(std::errc::file_exists,
              format_text("{}: device {} at {:#x} with length {:#x} overlaps {} at {:#x}", name_,
                          label, base, length, clash->second.device->label(), clash->first)));
  }
  std::shared_ptr<std::mutex> lock;
  for (const auto& [start, entry] : entries_) {
    if (entry.device == device) lock = entry.lock;
  }
  if (lock == nullptr) lock = std::make_shared<std::mutex>();
  entries_.emplace(base, Entry{.length = length, .device = std::move(device), .lock = lock});
  return {};
}

bool Bus::remove(uint64_t base) {
  Entry removed;  // outlives the guard: a destructor may use the bus
  std::unique_lock guard(mutex_);
  auto found = entries_.find(base);
  if (found == entries_.end()) return false;
  removed = std::move(found->second);
  entries_.erase(found);
  guard.unlock();
  return true;
}

const Bus::Entry* Bus::find(uint64_t address, uint64_t* base) const {
  auto after = entries_.upper_bound(address);
  if (after == entries_.begin()) return nullptr;
  auto found = std::prev(after);
  if (address - found->first >= found->second.length) return nullptr;
  *base = found->first;
  return &found->second;
}

// The map's lock is not held while a device runs: a write may insert or remove devices (hotplug),
// and one slow device must not stop the others.
void Bus::read(uint64_t address, std::span<std::byte> data) {
  uint64_t base = 0;
  Entry entry;
  {
    std::shared_lock guard(mutex_);
    const Entry* found = find(address, &base);
    if (found == nullptr) return;
    entry = *found;
  }
  std::lock_guard serialised(*entry.lock);
  entry.device->read(address - base, data);
}

void Bus::write(uint64_t address, std::span<const std::byte> data) {
  uint64_t base = 0;
  Entry entry;
  {
    std::shared_lock guard(mutex_);
    const Entry* found = find(address, &base);
    if (found == nullptr) return;
    entry = *found;
  }
  std::lock_guard serialised(*entry.lock);
  entry.device->write(address - base, data);
}

}  // namespace crosvm
