#include "virtio/rig/rig_driver.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace crosvm {
namespace {

Fd make_event() {
  auto event = make_eventfd();
  CHECK(event.has_value());
  return std::move(*event);
}

}  // namespace

RigBuffer readable(std::span<const std::byte> bytes) {
  return {.bytes = {bytes.begin(), bytes.end()}, .writable = false};
}

RigBuffer readable(std::string_view text) { return readable(std::as_bytes(std::span(text))); }

RigBuffer writable(size_t size) {
  return {.bytes = std::vector<std::byte>(size, kRigFiller), .writable = true};
}

RigDriver::RigDriver(RigMemory& memory, RigWaiter& waiter, const Options& options)
    : memory_(memory),
      waiter_(waiter),
      options_(options),
      ring_(DriverRing::create(memory, options.ring)),
      kick_(make_event()),
      call_(make_event()) {}

RigDriver::~RigDriver() = default;

DriverBuffer RigDriver::place(const RigBuffer& buffer) {
  const auto length = static_cast<uint32_t>(buffer.bytes.size());
  const GuestAddress address = memory_.allocate(length, 1);
  memory_.write(address, buffer.bytes);
  return {.address = address, .length = length, .writable = buffer.writable};
}

void RigDriver::release(const Request& request) {
  for (const DriverBuffer& buffer : request.buffers) memory_.free(buffer.address);
  if (request.table) memory_.free(*request.table);
}

RigToken RigDriver::add(const std::vector<RigBuffer>& buffers) {
  Request request{.token = next_token_++, .buffers = {}, .table = std::nullopt};
  for (const RigBuffer& buffer : buffers) request.buffers.push_back(place(buffer));
  if (options_.indirect && buffers.size() > 1)
    request.table = memory_.allocate(16 * buffers.size());
  const auto id = ring_->add(request.buffers, request.table);
  if (!id) log::error("the rig's ring of {} elements is full", options_.ring.size);
  CHECK(id.has_value());
  const RigToken token = request.token;
  requests_.insert_or_assign(*id, std::move(request));
  return token;
}

bool RigDriver::kick() {
  const bool wanted = ring_->publish();
  if (wanted) kick_anyway();
  return wanted;
}

void RigDriver::kick_anyway() const { signal_eventfd(kick_); }

RigToken RigDriver::send(const std::vector<RigBuffer>& buffers) {
  const RigToken token = add(buffers);
  kick();
  return token;
}

std::optional<RigUsed> RigDriver::take() {
  const auto used = ring_->take_used();
  if (!used) return std::nullopt;
  RigUsed result{.arrived = true, .token = 0, .written = used->written, .bytes = {}};
  const auto found = requests_.find(used->id);
  if (found == requests_.end()) return result;  // no token: nothing that we had sent
  result.token = found->second.token;
  for (const DriverBuffer& buffer : found->second.buffers) {
    if (!buffer.writable) continue;
    const size_t before = result.bytes.size();
    result.bytes.resize(before + buffer.length);
    memory_.read(buffer.address, std::span(result.bytes).subspan(before));
  }
  release(found->second);
  requests_.erase(found);
  return result;
}

std::optional<RigUsed> RigDriver::try_used() {
  if (arrived_.empty()) return take();
  RigUsed first = std::move(arrived_.front());
  arrived_.pop_front();
  return first;
}

template <class Take>
RigUsed RigDriver::wait_for(Take take, std::chrono::milliseconds timeout) {
  const auto deadline = RigWaiter::Clock::now() + timeout;
  for (;;) {
    if (auto used = take()) return std::move(*used);
    ring_->ask_for_interrupt();
    if (auto used = take()) return std::move(*used);  // it came before we had asked
    if (waiter_.broken() || RigWaiter::Clock::now() >= deadline) return {};
    waiter_.wait(call_, deadline);
    take_interrupts();
  }
}

RigUsed RigDriver::wait_used(std::chrono::milliseconds timeout) {
  return wait_for([this] { return try_used(); }, timeout);
}

RigUsed RigDriver::wait_used(RigToken token, std::chrono::milliseconds timeout) {
  auto take_mine = [&]() -> std::optional<RigUsed> {
    while (auto used = take()) arrived_.push_back(std::move(*used));
    const auto mine = std::ranges::find(arrived_, token, &RigUsed::token);
    if (mine == arrived_.end()) return std::nullopt;
    RigUsed used = std::move(*mine);
    arrived_.erase(mine);
    return used;
  };
  return wait_for(take_mine, timeout);
}

void RigDriver::restart(RingPosition position) {
  for (const auto& [id, request] : requests_) release(request);
  requests_.clear();
  arrived_.clear();
  drain_eventfd(kick_);
  drain_eventfd(call_);
  ring_->restart(position);
}

}  // namespace crosvm
