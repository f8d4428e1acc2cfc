#include "shout_device.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

namespace crosvm {

namespace {
constexpr int kRequestsInATurn = 64;
constexpr size_t kLongest = 4096;  // bytes; what is longer is cut, so a guest cannot cost us memory

std::byte upper(std::byte letter) { return std::byte(std::toupper(std::to_integer<int>(letter))); }
}  // namespace

ShoutDevice::ShoutDevice(const ShoutConfig& config, const DeviceContext& context)
    : config_(config), shoutq_(context.loop, context.events, [this] { return serve(); }) {}

Result<void> ShoutDevice::start_queue(uint16_t, Virtqueue queue) {
  return shoutq_.start(std::move(queue));
}

void ShoutDevice::stop_queue(uint16_t, StopDone done) { done(shoutq_.stop()); }

Result<QueueTurns::Turn> ShoutDevice::serve() {
  int left = kRequestsInATurn;
  while (left > 0) {
    auto chain = TRY(shoutq_.queue().pop());  // error: the ring is malformed
    if (!chain) break;
    --left;
    const uint32_t written = TRY(answer(*chain));
    shoutq_.queue().push_used(*std::move(chain), written);
  }
  shoutq_.queue().signal_used_if_needed();
  return left > 0 ? QueueTurns::Turn::kDone : QueueTurns::Turn::kMore;
}

Result<uint32_t> ShoutDevice::answer(const DescriptorChain& chain) const {
  const ChainBuffers request = chain.device_readable();
  const ChainBuffers room = chain.device_writable();
  std::array<std::byte, kLongest> copy;  // guest memory is copied once, then looked at
  const auto text = std::span(copy).first(std::min<uint64_t>(request.size(), kLongest - 1));
  TRY(request.read_bytes(0, text));
  std::ranges::transform(text, text.begin(), upper);
  auto whole = std::span(copy).first(text.size() + (config_.exclaim ? 1 : 0));
  if (config_.exclaim) whole.back() = std::byte{'!'};
  whole = whole.first(std::min<uint64_t>(whole.size(), room.size()));
  TRY(room.write_bytes(0, whole));
  return static_cast<uint32_t>(whole.size());
}

Result<std::unique_ptr<VirtioDevice>> ShoutFactory::create(const Config& config, Resources,
                                                           const DeviceContext& context) {
  return std::make_unique<ShoutDevice>(config, context);
}

}  // namespace crosvm
