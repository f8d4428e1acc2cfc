#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "virtio/descriptor_chain.h"
#include "virtio/dirty_log.h"
#include "virtio/inflight_log.h"
#include "virtio/ring_abi.h"
#include "virtio/ring_position.h"

namespace crosvm {

/// The largest queue of either kind, in elements (virtio 1.3 §2.7, §2.8.10.1).
inline constexpr uint16_t kMaxQueueSize = 32768;

/// The three parts of a ring, checked: in RAM, large enough and aligned.
struct RingAreas {
  GuestSlice descriptor;
  GuestSlice driver;
  GuestSlice device;
};

/// Where a ring starts. Requests in `replay` come before those of the ring; without a log there are
/// none, and `used` is `available`.
struct RingStart {
  RingPosition available;
  RingPosition used;
  std::vector<InflightLog::Request> replay;
  std::shared_ptr<InflightLog> log;
  RingDirtyLog dirty;
};

/// Whether the driver wants to know: `event` lies in the last `count` of the elements before `end`
/// (§2.7.7, vring_need_event). All three count modulo 65536.
constexpr bool passes_event(uint16_t event, uint16_t end, uint16_t count) {
  return static_cast<uint16_t>(end - event - 1) < count;
}

/// The layout of a virtqueue: what a Virtqueue leaves to the kind of ring. Every field that the
/// driver writes is read once.
class Ring {
 public:
  virtual ~Ring() = default;

  /// Fills `chain`, which is empty, and returns true; false when nothing is available, after having
  /// asked for a kick. Errors: the ring is malformed.
  virtual Result<bool> pop(DescriptorChain& chain) = 0;
  virtual void undo_pop(const DescriptorChain& chain) = 0;
  virtual void push_used(const DescriptorChain& chain, uint32_t written) = 0;
  virtual void push_used_together(std::span<const UsedChain> chains) = 0;
  /// Whether the driver wants an interrupt for what was pushed since the last call.
  virtual bool interrupt_due() = 0;
  virtual RingPosition position() const = 0;
};

}  // namespace crosvm
