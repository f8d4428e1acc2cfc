#pragma once

#include <span>
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

  /// The indices of `start` are below `size`; `memory` outlives the ring.
  PackedRing(const GuestMemory& memory, const RingAreas& areas, uint16_t size, uint64_t features,
             RingStart start);

  /// The position so many elements further on in a ring of `size`.
  static RingPosition advanced(RingPosition position, uint16_t descriptors, uint16_t size);

  Result<bool> pop(DescriptorChain& chain) override;
  void undo_pop(const DescriptorChain& chain) override;
  void push_used(const DescriptorChain& chain, uint32_t written) override;
  void push_used_together(std::span<const UsedChain> chains) override;
  bool interrupt_due() override;
  RingPosition position() const override { return avail_; }

 private:
  /// A used descriptor but for its flags, which make it one: where it is, and what they are.
  struct UsedFlags {
    size_t at = 0;
    uint16_t flags = 0;
  };
  UsedFlags fill_used(const DescriptorChain& chain, uint32_t written);
  void show_used(const UsedFlags& used);
  bool head_available(uint16_t& flags) const;
  void ask_for_kick() const;
  Result<void> walk(uint16_t head_flags, DescriptorChain& chain, RingPosition& next);
  Result<void> take_replayed(DescriptorChain& chain);
  Result<bool> add_descriptor(const RingDescriptor& descriptor, ChainBuilder& builder,
                              DescriptorChain& chain);
  Result<void> walk_table(const RingDescriptor& indirect, ChainBuilder& builder);
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

  std::shared_ptr<InflightLog> log_;  // or null
  std::vector<InflightLog::Request> replay_;
  size_t replayed_ = 0;
  RingDirtyLog dirty_;
  std::vector<RingDescriptor> elements_;  // of the chain at hand, for the log
};

}  // namespace crosvm
