#pragma once

#include <vector>

#include "virtio/rig/driver_ring.h"

namespace crosvm {

class SplitDriverRing : public DriverRing {
 public:
  SplitDriverRing(RigMemory& memory, const DriverRingOptions& options);

  std::optional<uint16_t> add(std::span<const DriverBuffer> buffers,
                              std::optional<GuestAddress> table) override;
  bool publish() override;
  std::optional<Used> take_used() override;
  void ask_for_interrupt(uint16_t more) override;
  void refuse_interrupts() override;
  void restart(RingPosition position) override;
  RingPosition position() const override { return {.index = last_used_}; }
  const VringAddresses& addresses() const override { return layout_.addresses(); }
  SplitLayout* split() override { return &layout_; }

  /// Puts `head` into the avail ring, whatever it is; `publish` shows it.
  void offer(uint16_t head);

 private:
  void release(uint16_t head);

  RigMemory& memory_;
  SplitLayout layout_;
  bool event_idx_;
  std::vector<uint16_t> free_;    // descriptors
  std::vector<uint16_t> next_;    // of each descriptor in a chain of ours
  std::vector<uint16_t> length_;  // descriptors of the chain that begins here, or 0
  uint16_t next_avail_ = 0;
  uint16_t published_ = 0;
  uint16_t last_used_ = 0;
};

}  // namespace crosvm
