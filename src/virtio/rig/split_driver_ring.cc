#include "virtio/rig/split_driver_ring.h"

#include <atomic>

namespace crosvm {

SplitDriverRing::SplitDriverRing(RigMemory& memory, const DriverRingOptions& options)
    : memory_(memory),
      layout_(memory, options.size),
      event_idx_(options.event_idx),
      next_(options.size),
      length_(options.size) {
  free_.reserve(options.size);
  restart({});
}

void SplitDriverRing::restart(RingPosition position) {
  layout_.clear();
  free_.clear();
  for (uint16_t i = layout_.size(); i > 0; --i) free_.push_back(i - 1);
  length_.assign(length_.size(), 0);
  next_avail_ = published_ = last_used_ = position.index;
  layout_.set_avail_idx(position.index);
  layout_.set_used_idx(position.index);
  ask_for_interrupt(0);
}

void SplitDriverRing::offer(uint16_t head) {
  layout_.set_avail(next_avail_ & (layout_.size() - 1), head);
  ++next_avail_;
}

std::optional<uint16_t> SplitDriverRing::add(std::span<const DriverBuffer> buffers,
                                             std::optional<GuestAddress> table) {
  const size_t count = table ? 1 : buffers.size();
  if (free_.size() < count || count == 0) return std::nullopt;
  const uint16_t head = free_.back();
  length_[head] = static_cast<uint16_t>(count);
  if (table) {
    write_table(memory_, *table, buffers, false);
    free_.pop_back();
    layout_.set_descriptor(
        head, {table->value, static_cast<uint32_t>(buffers.size() * 16), VRING_DESC_F_INDIRECT, 0});
    offer(head);
    return head;
  }
  for (size_t i = 0; i < count; ++i) {
    const uint16_t index = free_.back();
    free_.pop_back();
    const bool more = i + 1 < count;
    next_[index] = more ? free_.back() : 0;
    const uint16_t flags =
        (more ? VRING_DESC_F_NEXT : 0) | (buffers[i].writable ? VRING_DESC_F_WRITE : 0);
    layout_.set_descriptor(index,
                           {buffers[i].address.value, buffers[i].length, flags, next_[index]});
  }
  offer(head);
  return head;
}

bool SplitDriverRing::publish() {
  const uint16_t added = next_avail_ - published_;
  published_ = next_avail_;
  layout_.set_avail_idx(next_avail_);
  if (added == 0) return false;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (event_idx_) return passes_event(layout_.avail_event(), next_avail_, added);
  return (layout_.used_flags() & VRING_USED_F_NO_NOTIFY) == 0;
}

std::optional<DriverRing::Used> SplitDriverRing::take_used() {
  if (layout_.used_idx() == last_used_) return std::nullopt;
  const uint16_t slot = last_used_ & (layout_.size() - 1);
  const Used used{.id = static_cast<uint16_t>(layout_.used_id(slot)),
                  .written = layout_.used_length(slot)};
  ++last_used_;
  release(used.id);
  return used;
}

void SplitDriverRing::release(uint16_t head) {
  if (head >= length_.size()) return;
  uint16_t index = head;
  for (uint16_t left = std::exchange(length_[head], 0); left > 0; --left) {
    free_.push_back(index);
    index = next_[index];
  }
}

void SplitDriverRing::ask_for_interrupt(uint16_t more) {
  layout_.set_avail_flags(0);
  layout_.set_used_event(last_used_ + more);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void SplitDriverRing::refuse_interrupts() {
  layout_.set_avail_flags(VRING_AVAIL_F_NO_INTERRUPT);
  layout_.set_used_event(last_used_ - 1);  // passed already
}

}  // namespace crosvm
