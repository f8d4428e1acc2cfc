#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "virtio/rig/rig_driver.h"
#include "virtio/rig/rig_memory.h"
#include "virtio/ring.h"
#include "virtio/virtqueue.h"

namespace crosvm {

/// A Virtqueue and the driver opposite it, without a device between: for tests of rings alone.
class QueueBench : private RigWaiter {
 public:
  struct Options {
    uint16_t size = 16;
    bool packed = false;
    bool event_idx = true;
    bool indirect = true;
  };
  explicit QueueBench(const Options& options, RingPosition position = {})
      : options_(options),
        driver_(memory_, *this,
                {.ring = {.size = options.size,
                          .packed = options.packed,
                          .event_idx = options.event_idx},
                 .indirect = options.indirect}) {
    driver_.restart(position);
    reopen(position);
  }

  uint64_t features() const {
    return uint64_t{options_.packed} << VIRTIO_F_RING_PACKED |
           uint64_t{options_.event_idx} << VIRTIO_RING_F_EVENT_IDX |
           uint64_t{options_.indirect} << VIRTIO_RING_F_INDIRECT_DESC;
  }
  VirtqueueSetup setup(RingPosition position = {}) {
    return {.index = 5,
            .size = options_.size,
            .addresses = driver_.ring().addresses(),
            .features = features(),
            .position = position,
            .kick = std::move(*driver_.kick_descriptor().duplicate()),
            .call = std::move(*driver_.call_descriptor().duplicate())};
  }
  /// The device's side anew, on the ring as it is.
  void reopen(RingPosition position) {
    auto made = Virtqueue::create(memory_.guest(), setup(position));
    CHECK(made.has_value());
    queue_.emplace(std::move(*made));
  }

  /// Pops a chain that must be there.
  DescriptorChain pop() {
    auto popped = queue_->pop();
    CHECK(popped.has_value() && popped->has_value());
    return std::move(**popped);
  }
  bool is_empty() {
    auto popped = queue_->pop();
    CHECK(popped.has_value());
    return !popped->has_value();
  }
  /// Pops a chain and gives it back.
  void answer(uint32_t written = 0) { queue_->push_used(pop(), written); }

  RigMemory& memory() { return memory_; }
  RigDriver& driver() { return driver_; }
  Virtqueue& queue() { return *queue_; }

 private:
  void wait(const Fd&, Clock::time_point) override {}
  bool broken() const override { return true; }  // nobody answers while the driver waits

  Options options_;
  RigMemory memory_;
  RigDriver driver_;
  std::optional<Virtqueue> queue_;
};

}  // namespace crosvm
