#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "virtio/rig/ring_layout.h"

namespace crosvm {

/// A buffer in guest RAM that the driver offers.
struct DriverBuffer {
  GuestAddress address;
  uint32_t length = 0;
  bool writable = false;
};

/// What a rig's driver accepted of the device's features.
struct DriverRingOptions {
  uint16_t size = 0;
  bool packed = false;
  bool event_idx = false;
};

/// The driver's side of a ring, well-behaved. Allocates nothing after it was made.
class DriverRing {
 public:
  struct Used {
    uint16_t id = 0;
    uint32_t written = 0;
  };

  static std::unique_ptr<DriverRing> create(RigMemory& memory, const DriverRingOptions& options);
  virtual ~DriverRing() = default;

  /// Offers a chain, through an indirect table at `table` (16 bytes per buffer) if given. Returns
  /// its id, or nothing when the ring is full.
  virtual std::optional<uint16_t> add(std::span<const DriverBuffer> buffers,
                                      std::optional<GuestAddress> table) = 0;
  /// Makes what was added visible to the device. Returns whether the device wants a kick for it.
  virtual bool publish() = 0;
  /// The next chain that the device gave back.
  virtual std::optional<Used> take_used() = 0;
  /// Asks for an interrupt when `more` further chains are used after the next one. A packed ring
  /// counts descriptors.
  virtual void ask_for_interrupt(uint16_t more = 0) = 0;
  virtual void refuse_interrupts() = 0;
  /// Begins anew on zeroed memory at `position`.
  virtual void restart(RingPosition position) = 0;
  /// Where a device without chains in flight goes on.
  virtual RingPosition position() const = 0;
  virtual const VringAddresses& addresses() const = 0;

  // The ring's memory, for tests that break it; the one of the other kind is null.
  virtual SplitLayout* split() { return nullptr; }
  virtual PackedLayout* packed() { return nullptr; }
};

/// Writes an indirect table; a split ring's entries are linked.
void write_table(RigMemory& memory, GuestAddress table, std::span<const DriverBuffer> buffers,
                 bool packed);

}  // namespace crosvm
