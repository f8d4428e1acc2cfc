#include "virtio/split_ring.h"

#include <array>
#include <atomic>
#include <bit>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

// Offsets in the avail and the used ring (virtio 1.3 §2.7.6, §2.7.8).
constexpr size_t kFlags = 0;
constexpr size_t kIdx = 2;
constexpr size_t kElements = 4;
constexpr uint16_t kKnownFlags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT;

Error too_long(uint16_t size) {
  return Error::invalid(format_text("a chain of more than {} descriptors, or a loop", size));
}

RingDescriptor read_descriptor(const GuestSlice& table, uint16_t index) {
  const size_t at = size_t{index} * sizeof(RingDescriptor);
  return std::bit_cast<RingDescriptor>(std::array<uint64_t, 2>{
      table.load_relaxed<uint64_t>(at), table.load_relaxed<uint64_t>(at + 8)});
}

Result<void> check_flags(uint16_t flags) {
  if ((flags & ~kKnownFlags) == 0) return {};
  return fail(Error::invalid(format_text("descriptor flags {:#x}", flags)));
}

}  // namespace

SplitRing::SplitRing(const GuestMemory& memory, const RingAreas& areas, uint16_t size,
                     uint64_t features, RingStart start)
    : memory_(&memory),
      areas_(areas),
      size_(size),
      event_idx_((features >> VIRTIO_RING_F_EVENT_IDX & 1) != 0),
      indirect_((features >> VIRTIO_RING_F_INDIRECT_DESC & 1) != 0),
      avail_idx_(start.available.index),
      next_avail_(start.available.index),
      used_idx_(start.used.index),
      heads_out_(size),
      log_(std::move(start.log)),
      replay_(std::move(start.replay)),
      dirty_(std::move(start.dirty)) {}

Result<uint16_t> SplitRing::read_avail_idx() const {
  const uint16_t idx = areas_.driver.load_acquire<uint16_t>(kIdx);
  const uint16_t ahead = idx - next_avail_;
  if (ahead <= size_) return idx;
  return fail(
      Error::invalid(format_text("avail idx {} is {} ahead of us at {}, in a ring of {} elements",
                                 idx, ahead, next_avail_, size_)));
}

Result<bool> SplitRing::look_for_more() {
  avail_idx_ = TRY(read_avail_idx());
  if (avail_idx_ != next_avail_) return true;
  if (!event_idx_) return false;
  const size_t avail_event = kElements + 8ull * size_;
  areas_.device.store_relaxed<uint16_t>(avail_event, next_avail_);
  dirty_.mark_device_area(avail_event, sizeof(uint16_t));
  // Either the driver sees what we ask for, or we see what it added (§2.7.10).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  avail_idx_ = TRY(read_avail_idx());
  return avail_idx_ != next_avail_;
}

Result<uint16_t> SplitRing::read_head() const {
  const size_t slot = next_avail_ & (size_ - 1);
  return check_head(areas_.driver.load_relaxed<uint16_t>(kElements + 2 * slot));
}

Result<uint16_t> SplitRing::check_head(uint16_t head) const {
  if (head >= size_) {
    return fail(Error::invalid(format_text("head {} in a ring of {} elements", head, size_)));
  }
  if (heads_out_[head]) {
    return fail(Error::invalid(format_text("head {} is in flight already", head)));
  }
  return head;
}

Result<void> SplitRing::pop_replayed(DescriptorChain& chain) {
  chain.slot_ = replay_[replayed_].slot;
  chain.id_ = TRY(check_head(chain.slot_));
  TRY(walk(chain));
  chain.replayed_ = true;
  heads_out_[chain.id_] = true;
  descriptors_out_ += chain.descriptors_;
  ++replayed_;
  return {};
}

Result<bool> SplitRing::pop(DescriptorChain& chain) {
  if (replayed_ < replay_.size()) [[unlikely]] {
    TRY(pop_replayed(chain));
    return true;
  }
  if (avail_idx_ == next_avail_ && !TRY(look_for_more())) return false;
  chain.id_ = TRY(read_head());
  TRY(walk(chain));
  heads_out_[chain.id_] = true;
  descriptors_out_ += chain.descriptors_;
  ++next_avail_;
  if (log_) chain.slot_ = log_->take(chain.id_, {});
  return true;
}

Result<void> SplitRing::walk(DescriptorChain& chain) {
  ChainBuilder builder(*memory_, chain);
  uint16_t index = chain.id_;
  for (;;) {
    // A descriptor belongs to one chain: this bounds the sum over all chains too.
    if (descriptors_out_ + chain.descriptors_ >= size_) return fail(too_long(size_));
    ++chain.descriptors_;
    const RingDescriptor descriptor = read_descriptor(areas_.descriptor, index);
    const uint16_t flags = descriptor.third;
    TRY(check_flags(flags));
    if (flags & VRING_DESC_F_INDIRECT) {
      if (flags & VRING_DESC_F_NEXT) return fail(Error::invalid("descriptor with INDIRECT|NEXT"));
      TRY(walk_table(descriptor, chain.descriptors_ - 1u, builder));
      break;
    }
    TRY(builder.add(descriptor.address, descriptor.length, flags & VRING_DESC_F_WRITE));
    if (!(flags & VRING_DESC_F_NEXT)) break;
    index = descriptor.fourth;
    if (index >= size_) {
      return fail(Error::invalid(format_text("next {} in a ring of {} elements", index, size_)));
    }
  }
  return builder.finish();
}

Result<void> SplitRing::walk_table(const RingDescriptor& indirect, uint32_t seen,
                                   ChainBuilder& builder) {
  if (!indirect_) return fail(Error::invalid("INDIRECT without VIRTIO_F_INDIRECT_DESC"));
  // The WRITE flag of the descriptor that leads here says nothing (§2.7.5.3.2).
  const auto table =
      TRY(IndirectTable::open(*memory_, indirect.address, indirect.length, table_slices_));
  uint32_t index = 0;
  for (;;) {
    if (++seen > size_) return fail(too_long(size_));
    const RingDescriptor entry = TRY(table.entry(index));
    const uint16_t flags = entry.third;
    TRY(check_flags(flags));
    if (flags & VRING_DESC_F_INDIRECT) return fail(Error::invalid("INDIRECT in a table"));
    TRY(builder.add(entry.address, entry.length, flags & VRING_DESC_F_WRITE));
    if (!(flags & VRING_DESC_F_NEXT)) return {};
    index = entry.fourth;
    if (index >= table.entries()) {
      return fail(
          Error::invalid(format_text("next {} in a table of {} entries", index, table.entries())));
    }
  }
}

void SplitRing::undo_pop(const DescriptorChain& chain) {
  CHECK(heads_out_[chain.id_]);
  heads_out_[chain.id_] = false;
  descriptors_out_ -= chain.descriptors_;
  if (chain.replayed_) {
    --replayed_;
    return;
  }
  --next_avail_;
  if (log_) log_->undo_take(chain.slot_);
}

/// The element of a chain, which the driver does not see before the index.
void SplitRing::fill_used(const DescriptorChain& chain, uint32_t written) {
  CHECK(heads_out_[chain.id_]);
  heads_out_[chain.id_] = false;
  descriptors_out_ -= chain.descriptors_;
  const size_t at = kElements + 8ull * (used_idx_ & (size_ - 1));
  areas_.device.store_relaxed<uint32_t>(at, chain.id_);
  areas_.device.store_relaxed<uint32_t>(at + 4, written);
  dirty_.mark_device_area(at, 8);
  ++used_idx_;
  ++unsignalled_;
}

void SplitRing::push_used(const DescriptorChain& chain, uint32_t written) {
  fill_used(chain, written);
  if (log_) log_->begin_used(chain.slot_, {.index = used_idx_});
  areas_.device.store_release<uint16_t>(kIdx, used_idx_);
  dirty_.mark_device_area(kIdx, sizeof(uint16_t));
  if (log_) log_->finish_used(chain.slot_);
}

void SplitRing::push_used_together(std::span<const UsedChain> chains) {
  CHECK(!log_);
  for (const UsedChain& used : chains) fill_used(used.chain, used.written);
  areas_.device.store_release<uint16_t>(kIdx, used_idx_);
  dirty_.mark_device_area(kIdx, sizeof(uint16_t));
}

bool SplitRing::interrupt_due() {
  const uint64_t pushed = std::exchange(unsignalled_, 0);
  if (pushed == 0) return false;
  // Either the driver sees the used index, or we see that it waits for it (§2.7.7).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!event_idx_) {
    return !(areas_.driver.load_relaxed<uint16_t>(kFlags) & VRING_AVAIL_F_NO_INTERRUPT);
  }
  const uint16_t used_event = areas_.driver.load_relaxed<uint16_t>(kElements + 2ull * size_);
  return pushed > UINT16_MAX || passes_event(used_event, used_idx_, static_cast<uint16_t>(pushed));
}

}  // namespace crosvm
