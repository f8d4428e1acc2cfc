#pragma once

#include <vector>

#include "virtio/chain_builder.h"
#include "virtio/ring.h"

namespace crosvm {

/// A packed virtqueue (virtio 1.3 §2.8).
class PackedRing : public Ring {
 public:
  // Bytes of each part.
  static constexpr uint64_t descriptor_bytes(uint16_t size) { return 16ull * size; }
  static constexpr uint64_t kEventBytes = 4;  // the driver's and the device's

  /// `position.index` is below `size`; `memory` outlives the ring.
  PackedRing(const GuestMemory& memory, const RingAreas& areas, uint16_t size, uint64_t features,
             RingPosition position);

  Result<bool> pop(DescriptorChain& chain) override;
  void undo_pop(const DescriptorChain& chain) override;
  void push_used(const DescriptorChain& chain, uint32_t written) override;
  bool interrupt_due() override;
  RingPosition position() const override { return avail_; }

 private:
  bool head_available(uint16_t& flags) const;
  void ask_for_kick() const;
  Result<void> walk(uint16_t head_flags, DescriptorChain& chain, RingPosition& next);
  Result<void> walk_table(const RingDescriptor& indirect, ChainBuilder& builder);
  void advance(RingPosition& position, uint16_t descriptors) const;
  bool passes_driver_event(uint16_t off_wrap, uint64_t advanced) const;

  const GuestMemory* memory_;
  RingAreas areas_;
  uint16_t size_;
  bool event_idx_;
  bool indirect_;

  RingPosition avail_;         // what we pop next
  RingPosition used_;          // where the next used descriptor goes
  uint64_t unsignalled_ = 0;   // elements that `used_` advanced by since the last decision
  std::vector<bool> ids_out_;  // any 16-bit buffer id is allowed
  uint32_t descriptors_out_ = 0;
  std::vector<GuestSlice> table_slices_;
};

}  // namespace crosvm
