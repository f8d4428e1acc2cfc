#pragma once

#include <vector>

#include "virtio/rig/driver_ring.h"

namespace crosvm {

class PackedDriverRing : public DriverRing {
 public:
  PackedDriverRing(RigMemory& memory, const DriverRingOptions& options);

  std::optional<uint16_t> add(std::span<const DriverBuffer> buffers,
                              std::optional<GuestAddress> table) override;
  bool publish() override;
  std::optional<Used> take_used() override;
  void ask_for_interrupt(uint16_t more) override;
  void refuse_interrupts() override;
  void restart(RingPosition position) override;
  RingPosition position() const override { return used_; }
  const VringAddresses& addresses() const override { return layout_.addresses(); }
  PackedLayout* packed() override { return &layout_; }

  /// One descriptor as it goes into the ring; AVAIL and USED are added to the flags.
  struct Element {
    uint64_t address = 0;
    uint32_t length = 0;
    uint16_t id = 0;
    uint16_t flags = 0;
  };
  /// Writes elements, whatever they are, and makes them available, the first one last.
  void offer(std::span<const Element> elements);
  /// Remembers that the chain `id` has so many elements.
  void expect(uint16_t id, uint16_t elements) { length_[id] = elements; }

 private:
  void advance(RingPosition& position, uint16_t count) const;
  uint16_t off_wrap(RingPosition position) const;

  RigMemory& memory_;
  PackedLayout layout_;
  bool event_idx_;
  std::vector<uint16_t> ids_;     // free ones
  std::vector<uint16_t> length_;  // elements of the chain with this id
  std::vector<Element> scratch_;
  uint32_t free_elements_ = 0;
  uint32_t unpublished_ = 0;  // elements since the last publish
  RingPosition avail_;
  RingPosition used_;
};

}  // namespace crosvm
