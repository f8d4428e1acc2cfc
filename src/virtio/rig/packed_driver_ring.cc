#include "virtio/rig/packed_driver_ring.h"

#include <atomic>
#include <cstring>

namespace crosvm {

PackedDriverRing::PackedDriverRing(RigMemory& memory, const DriverRingOptions& options)
    : memory_(memory),
      layout_(memory, options.size),
      event_idx_(options.event_idx),
      length_(UINT16_MAX + 1) {
  ids_.reserve(options.size);
  scratch_.reserve(options.size);
  restart({});
}

void PackedDriverRing::restart(RingPosition position) {
  layout_.clear();
  ids_.clear();
  for (uint16_t i = layout_.size(); i > 0; --i) ids_.push_back(i - 1);
  std::memset(length_.data(), 0, length_.size() * sizeof(uint16_t));
  free_elements_ = layout_.size();
  unpublished_ = 0;
  avail_ = used_ = position;
  // Descriptors that look used in the lap that `position` is in, and the one before behind it.
  for (uint16_t i = 0; i < layout_.size(); ++i) {
    const bool wrap = position.wrap_counter == (i < position.index);
    layout_.set_flags(i, wrap ? PackedLayout::kAvail | PackedLayout::kUsed : 0);
  }
  ask_for_interrupt(0);
}

void PackedDriverRing::advance(RingPosition& position, uint16_t count) const {
  const uint32_t index = uint32_t{position.index} + count;
  if (index >= layout_.size()) position.wrap_counter = !position.wrap_counter;
  position.index = static_cast<uint16_t>(index % layout_.size());
}

uint16_t PackedDriverRing::off_wrap(RingPosition position) const {
  return position.index | (position.wrap_counter ? 1 << VRING_PACKED_EVENT_F_WRAP_CTR : 0);
}

void PackedDriverRing::offer(std::span<const Element> elements) {
  const RingPosition head = avail_;
  for (size_t i = 0; i < elements.size(); ++i) {
    const Element& element = elements[i];
    layout_.set_body(avail_.index, element.address, element.length, element.id);
    if (i != 0) {
      layout_.set_flags(avail_.index, element.flags | PackedLayout::available(avail_.wrap_counter));
    }
    advance(avail_, 1);
  }
  layout_.set_flags(head.index, elements[0].flags | PackedLayout::available(head.wrap_counter));
  unpublished_ += static_cast<uint32_t>(elements.size());
}

std::optional<uint16_t> PackedDriverRing::add(std::span<const DriverBuffer> buffers,
                                              std::optional<GuestAddress> table) {
  const size_t count = table ? 1 : buffers.size();
  if (ids_.empty() || free_elements_ < count || count == 0) return std::nullopt;
  const uint16_t id = ids_.back();
  ids_.pop_back();
  free_elements_ -= static_cast<uint32_t>(count);
  expect(id, static_cast<uint16_t>(count));
  scratch_.clear();
  if (table) {
    write_table(memory_, *table, buffers, true);
    scratch_.push_back(
        {table->value, static_cast<uint32_t>(buffers.size() * 16), id, VRING_DESC_F_INDIRECT});
  } else {
    for (size_t i = 0; i < count; ++i) {
      const uint16_t flags =
          (i + 1 < count ? VRING_DESC_F_NEXT : 0) | (buffers[i].writable ? VRING_DESC_F_WRITE : 0);
      scratch_.push_back({buffers[i].address.value, buffers[i].length, id, flags});
    }
  }
  offer(scratch_);
  return id;
}

bool PackedDriverRing::publish() {
  const uint32_t added = std::exchange(unpublished_, 0);
  if (added == 0) return false;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const uint16_t mode = layout_.device_event_flags() & 3;
  if (mode == VRING_PACKED_EVENT_FLAG_DISABLE) return false;
  if (mode != VRING_PACKED_EVENT_FLAG_DESC || added >= layout_.size()) return true;
  const uint16_t wanted = layout_.device_event();
  const bool same_lap = ((wanted >> VRING_PACKED_EVENT_F_WRAP_CTR) != 0) == avail_.wrap_counter;
  const uint16_t offset = wanted & 0x7fff;
  const uint16_t event = same_lap ? offset : static_cast<uint16_t>(offset - layout_.size());
  return passes_event(event, avail_.index, static_cast<uint16_t>(added));
}

std::optional<DriverRing::Used> PackedDriverRing::take_used() {
  const uint16_t flags = layout_.flags(used_.index);
  const bool avail = (flags & PackedLayout::kAvail) != 0;
  const bool used = (flags & PackedLayout::kUsed) != 0;
  if (avail != used || used != used_.wrap_counter) return std::nullopt;
  const Used result{.id = layout_.id(used_.index),
                    // §2.8.5: without WRITE the length says nothing.
                    .written = flags & VRING_DESC_F_WRITE ? layout_.length(used_.index) : 0};
  const uint16_t elements = std::exchange(length_[result.id], 0);
  if (elements == 0) return std::nullopt;  // we never offered it: the ring cannot be followed on
  advance(used_, elements);
  free_elements_ += elements;
  ids_.push_back(result.id);
  return result;
}

void PackedDriverRing::ask_for_interrupt(uint16_t more) {
  if (event_idx_) {
    RingPosition at = used_;
    advance(at, more);
    layout_.set_driver_event(off_wrap(at), VRING_PACKED_EVENT_FLAG_DESC);
  } else {
    layout_.set_driver_event(0, VRING_PACKED_EVENT_FLAG_ENABLE);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void PackedDriverRing::refuse_interrupts() {
  layout_.set_driver_event(0, VRING_PACKED_EVENT_FLAG_DISABLE);
}

}  // namespace crosvm
