#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "memory/guest_memory.h"
#include "virtio/descriptor_chain.h"
#include "virtio/dirty_log.h"
#include "virtio/inflight_log.h"
#include "virtio/ring_position.h"

namespace crosvm {

/// Guest physical addresses of the three parts of a ring (virtio 1.3 §2.7, §2.8).
struct VringAddresses {
  GuestAddress descriptor_area;
  GuestAddress driver_area;  ///< split: avail ring; packed: driver event suppression
  GuestAddress device_area;  ///< split: used ring; packed: device event suppression

  friend bool operator==(const VringAddresses&, const VringAddresses&) = default;
};

/// All that a ring needs in order to run.
struct VirtqueueSetup {
  uint16_t index = 0;  ///< names the queue in errors
  uint16_t size = 0;   ///< elements; split: a power of two
  VringAddresses addresses;
  uint64_t features = 0;  ///< negotiated: RING_PACKED, EVENT_IDX and INDIRECT_DESC count here
  RingPosition position;
  Fd kick;  ///< an eventfd that the driver's notifications signal
  Fd call;  ///< an eventfd that we signal to interrupt the driver; none: the driver polls
  /// Requests in flight are remembered in it; what it remembers of an earlier process comes first,
  /// and it knows better than `position`. May be null.
  std::shared_ptr<InflightLog> inflight = {};
  /// The buffers that come back are noted in it, whatever was written to them. May be null.
  std::shared_ptr<DirtyLog> dirty = {};
  /// With `dirty`: where the writes to the device area are noted, and those to a packed ring's
  /// descriptors at their own address; none: neither is.
  std::optional<GuestAddress> device_area_log = {};
};

/// The device's side of one virtqueue, split or packed. Belongs to one event loop's thread.
///
/// The driver is not trusted: whatever it writes, `pop` answers with a chain whose buffers lie in
/// RAM, with nothing, or with an error that says what is wrong with the ring; the amount of work
/// per call is bounded by the ring's size.
class Virtqueue {
 public:
  /// Checks size, alignment (§2.7, §2.8.10.1), that all parts lie in guest RAM, and that the log of
  /// dirty pages reaches as far. `memory` must outlive the queue. Errors: invalid_argument or
  /// bad_address naming the queue and the part.
  static Result<Virtqueue> create(const GuestMemory& memory, VirtqueueSetup setup);
  Virtqueue(Virtqueue&&) noexcept;
  Virtqueue& operator=(Virtqueue&&) noexcept;
  ~Virtqueue();

  uint16_t index() const;
  uint16_t size() const;

  /// The next request, or nothing when the driver has made no more available; then a kick is asked
  /// for. Errors: invalid_argument or bad_address naming the queue: the ring is malformed, and
  /// every later call fails too.
  Result<std::optional<DescriptorChain>> pop();
  /// Gives back the chain popped last, as if it had not been popped. Chains popped before it may
  /// still be out.
  void undo_pop(DescriptorChain chain);
  /// Gives a chain back to the driver; `written` is the number of bytes written to its
  /// device-writable part from its start (§2.7.8). Order is free.
  void push_used(DescriptorChain chain, uint32_t written);
  /// The same of several, which the driver sees at once or not at all: the buffers of one packet
  /// (§5.1.6.4). With a log of requests in flight they come one after the other. Takes them.
  void push_used_together(std::span<UsedChain> chains);
  /// Interrupts the driver if it wants to know of what was pushed since the last call (§2.7.7,
  /// §2.8.10). Returns whether it did.
  bool signal_used_if_needed();

  /// Chains popped and not given back.
  uint16_t in_flight() const;
  /// Where to resume; what is in flight then comes out of the log alone.
  RingPosition position() const;

  /// Calls `process` on `loop` soon once, as the driver may have kicked before, and then whenever
  /// it kicks. In one call `pop` gives at most `size` chains, then nothing, and `process` is called
  /// again later: a driver that refills its ring without end cannot keep the loop to itself. When
  /// `process` returns an error the ring is malformed: it is not called again, and the error goes
  /// to `broken`. The loop outlives the queue. Errors: the errno of epoll_ctl.
  Result<void> listen(EventLoop& loop, std::function<Result<void>()> process,
                      std::function<void(Error)> broken);
  /// Has `process` called soon, as after a kick: for a device that left requests in the ring.
  /// Nothing happens to a queue that does not listen.
  void process_soon();
  /// Stops listening; kicks stay in the descriptor.
  void unlisten();

 private:
  struct State;
  explicit Virtqueue(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
