#include "devices/rng/rng_device.h"

#include <linux/virtio_ids.h>
#include <sys/random.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace crosvm {
namespace {

// What a turn costs at most: a request of 4 GiB must not keep the loop for seconds.
constexpr uint64_t kTurnBytes = 64 << 10;
constexpr uint64_t kChainCost = 64;  // bytes that a chain counts for, an empty one too
constexpr size_t kChunkBytes = 4096;

/// getrandom(2): needs no descriptor, so it works in an empty root directory.
Result<void> random_bytes(std::span<std::byte> to) {
  while (!to.empty()) {
    const ssize_t got = ::getrandom(to.data(), to.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno("reading", "random bytes of the host"));
    to = to.subspan(static_cast<size_t>(got));
  }
  return {};
}

}  // namespace

RngDevice::RngDevice(const DeviceContext& context)
    : requestq_(context.loop, context.events, [this] { return serve(); }) {}

uint32_t RngDevice::device_type() const { return VIRTIO_ID_RNG; }

Result<void> RngDevice::start_queue(uint16_t, Virtqueue queue) {
  return requestq_.start(std::move(queue));
}

void RngDevice::stop_queue(uint16_t, StopDone done) {
  if (request_) requestq_.queue().undo_pop(*std::exchange(request_, std::nullopt));
  done(requestq_.stop());
}

Result<QueueTurns::Turn> RngDevice::serve() {
  uint64_t budget = kTurnBytes;
  while (budget > 0) {
    if (!request_) {
      request_ = TRY(requestq_.queue().pop());
      if (!request_) break;
      filled_ = 0;
      budget -= std::min(budget, kChainCost);
    }
    TRY(fill_some(budget));
  }
  requestq_.queue().signal_used_if_needed();
  return budget > 0 ? QueueTurns::Turn::kDone : QueueTurns::Turn::kMore;
}

Result<void> RngDevice::fill_some(uint64_t& budget) {
  const ChainBuffers buffers = request_->device_writable();
  // The used length has 32 bits; fewer bytes than asked for are a valid answer (§5.4.6.1).
  const uint64_t wanted = std::min<uint64_t>(buffers.size(), std::numeric_limits<uint32_t>::max());
  std::array<std::byte, kChunkBytes> chunk;
  while (filled_ < wanted && budget > 0) {
    const auto part = std::span(chunk).first(std::min({chunk.size(), wanted - filled_, budget}));
    TRY(random_bytes(part));
    TRY(buffers.write_bytes(filled_, part));
    filled_ += part.size();
    budget -= part.size();
  }
  if (filled_ < wanted) return {};
  requestq_.queue().push_used(*std::exchange(request_, std::nullopt),
                              static_cast<uint32_t>(filled_));
  return {};
}

Result<RngFactory::Config> RngFactory::parse(const KeyValues& text) {
  TRY(text.read({}));
  return Config{};
}

Result<std::unique_ptr<VirtioDevice>> RngFactory::create(const Config&, Resources,
                                                         const DeviceContext& context) {
  return std::make_unique<RngDevice>(context);
}

}  // namespace crosvm
