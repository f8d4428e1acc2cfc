#pragma once

#include <span>
#include <vector>

#include "virtio/chain_builder.h"
#include "virtio/ring.h"

namespace crosvm {

/// A split virtqueue (virtio 1.3 §2.7).
class SplitRing : public Ring {
 public:
  // Bytes of each part; the last two of the driver's and the device's are the event indices.
  static constexpr uint64_t descriptor_bytes(uint16_t size) { return 16ull * size; }
  static constexpr uint64_t driver_bytes(uint16_t size) { return 6 + 2ull * size; }
  static constexpr uint64_t device_bytes(uint16_t size) { return 6 + 8ull * size; }

  static constexpr size_t kUsedIdx = 2;  // offset in the device's part

  /// `size` is a power of two; `memory` outlives the ring.
  SplitRing(const GuestMemory& memory, const RingAreas& areas, uint16_t size, uint64_t features,
            RingStart start);

  Result<bool> pop(DescriptorChain& chain) override;
  void undo_pop(const DescriptorChain& chain) override;
  void push_used(const DescriptorChain& chain, uint32_t written) override;
  void push_used_together(std::span<const UsedChain> chains) override;
  bool interrupt_due() override;
  RingPosition position() const override { return {.index = next_avail_}; }

 private:
  void fill_used(const DescriptorChain& chain, uint32_t written);
  Result<bool> look_for_more();
  Result<uint16_t> read_avail_idx() const;
  Result<uint16_t> read_head() const;
  Result<uint16_t> check_head(uint16_t head) const;
  Result<void> pop_replayed(DescriptorChain& chain);
  Result<void> walk(DescriptorChain& chain);
  Result<void> walk_table(const RingDescriptor& indirect, uint32_t seen, ChainBuilder& builder);

  const GuestMemory* memory_;
  RingAreas areas_;
  uint16_t size_;
  bool event_idx_;
  bool indirect_;

  uint16_t avail_idx_;        // the driver's index as read last
  uint16_t next_avail_;       // what we pop next
  uint16_t used_idx_;         // our own copy: the driver may overwrite the ring's
  uint64_t unsignalled_ = 0;  // pushed since the last decision on an interrupt
  std::vector<bool> heads_out_;
  uint32_t descriptors_out_ = 0;  // ring elements that belong to chains in flight
  std::vector<GuestSlice> table_slices_;

  std::shared_ptr<InflightLog> log_;  // or null
  std::vector<InflightLog::Request> replay_;
  size_t replayed_ = 0;
  RingDirtyLog dirty_;
};

}  // namespace crosvm
