#include "virtio/packed_ring.h"

#include <atomic>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

// Offsets in a descriptor (virtio 1.3 §2.8.13).
constexpr size_t kAddress = 0;
constexpr size_t kLength = 8;
constexpr size_t kId = 12;
constexpr size_t kFlags = 14;

constexpr uint16_t kAvail = 1 << VRING_PACKED_DESC_F_AVAIL;
constexpr uint16_t kUsed = 1 << VRING_PACKED_DESC_F_USED;
constexpr uint16_t kWrap = 1 << VRING_PACKED_EVENT_F_WRAP_CTR;
constexpr uint16_t kModeMask = 3;

/// §2.8.1: the AVAIL bit equals the wrap counter, the USED bit does not.
bool is_available(uint16_t flags, bool wrap_counter) {
  const bool avail = (flags & kAvail) != 0;
  const bool used = (flags & kUsed) != 0;
  return avail == wrap_counter && used != wrap_counter;
}

size_t offset_of(uint16_t index) { return size_t{index} * sizeof(RingDescriptor); }

/// An event suppression structure: the offset and wrap counter, then the flags (§2.8.14).
uint32_t event_word(uint16_t off_wrap, uint16_t flags) { return off_wrap | uint32_t{flags} << 16; }

}  // namespace

PackedRing::PackedRing(const GuestMemory& memory, const RingAreas& areas, uint16_t size,
                       uint64_t features, RingStart start)
    : memory_(&memory),
      areas_(areas),
      size_(size),
      event_idx_((features >> VIRTIO_RING_F_EVENT_IDX & 1) != 0),
      indirect_((features >> VIRTIO_RING_F_INDIRECT_DESC & 1) != 0),
      avail_(start.available),
      used_(start.used),
      ids_out_(UINT16_MAX + 1),
      log_(std::move(start.log)),
      replay_(std::move(start.replay)),
      dirty_(std::move(start.dirty)) {
  areas_.device.store_relaxed<uint32_t>(0, event_word(0, VRING_PACKED_EVENT_FLAG_ENABLE));
  dirty_.mark_device_area(0, kEventBytes);
}

RingPosition PackedRing::advanced(RingPosition position, uint16_t descriptors, uint16_t size) {
  const uint32_t index = uint32_t{position.index} + descriptors;
  if (index < size) return {static_cast<uint16_t>(index), position.wrap_counter};
  return {static_cast<uint16_t>(index - size), !position.wrap_counter};
}

bool PackedRing::head_available(uint16_t& flags) const {
  flags = areas_.descriptor.load_acquire<uint16_t>(offset_of(avail_.index) + kFlags);
  return is_available(flags, avail_.wrap_counter);
}

void PackedRing::ask_for_kick() const {
  const uint16_t wrap = avail_.wrap_counter ? kWrap : 0;
  areas_.device.store_relaxed<uint32_t>(
      0, event_word(avail_.index | wrap, VRING_PACKED_EVENT_FLAG_DESC));
  dirty_.mark_device_area(0, kEventBytes);
  // Either the driver sees what we ask for, or we see what it added (§2.8.21.3).
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

Result<bool> PackedRing::pop(DescriptorChain& chain) {
  const bool replayed = replayed_ < replay_.size();
  RingPosition next = avail_;
  if (replayed) [[unlikely]] {
    TRY(take_replayed(chain));
  } else {
    uint16_t flags = 0;
    if (!head_available(flags)) {
      if (!event_idx_) return false;
      ask_for_kick();
      if (!head_available(flags)) return false;
    }
    TRY(walk(flags, chain, next));
  }
  if (ids_out_[chain.id_]) {
    return fail(Error::invalid(format_text("buffer id {} is in flight already", chain.id_)));
  }
  ids_out_[chain.id_] = true;
  descriptors_out_ += chain.descriptors_;
  avail_ = next;
  if (replayed) {
    ++replayed_;
  } else if (log_) {
    chain.slot_ = log_->take(chain.id_, elements_);
  }
  return true;
}

Result<void> PackedRing::take_replayed(DescriptorChain& chain) {
  const InflightLog::Request& request = replay_[replayed_];
  ChainBuilder builder(*memory_, chain);
  for (const RingDescriptor& element : request.elements) {
    if (descriptors_out_ + chain.descriptors_ >= size_) {
      return fail(Error::invalid("the log holds more elements than the ring has"));
    }
    TRY(add_descriptor(element, builder, chain));
  }
  chain.slot_ = request.slot;
  chain.replayed_ = true;
  return builder.finish();
}

Result<bool> PackedRing::add_descriptor(const RingDescriptor& descriptor, ChainBuilder& builder,
                                        DescriptorChain& chain) {
  const uint16_t flags = descriptor.fourth;
  ++chain.descriptors_;
  chain.id_ = descriptor.third;  // the last one's counts (§2.8.6)
  if (flags & VRING_DESC_F_INDIRECT) {
    if (flags & VRING_DESC_F_NEXT || chain.descriptors_ > 1) {
      return fail(Error::invalid("an indirect descriptor in a list of descriptors"));
    }
    TRY(walk_table(descriptor, builder));
    return false;
  }
  TRY(builder.add(descriptor.address, descriptor.length, flags & VRING_DESC_F_WRITE));
  return (flags & VRING_DESC_F_NEXT) != 0;
}

Result<void> PackedRing::walk(uint16_t head_flags, DescriptorChain& chain, RingPosition& next) {
  ChainBuilder builder(*memory_, chain);
  uint16_t flags = head_flags;
  elements_.clear();
  for (;;) {
    // An element stays with its chain until that is used: this bounds loops and the sum over all.
    if (descriptors_out_ + chain.descriptors_ >= size_) {
      return fail(Error::invalid(
          format_text("chains of more than {} descriptors, as many as the ring has", size_)));
    }
    const size_t at = offset_of(next.index);
    if (chain.descriptors_ != 0) {
      // The driver makes the first descriptor available last (§2.8.6).
      flags = areas_.descriptor.load_relaxed<uint16_t>(at + kFlags);
      if (!is_available(flags, next.wrap_counter)) {
        return fail(Error::invalid(
            format_text("descriptor {} in the middle of a chain is not available", next.index)));
      }
    }
    const RingDescriptor descriptor{
        .address = areas_.descriptor.load_relaxed<uint64_t>(at + kAddress),
        .length = areas_.descriptor.load_relaxed<uint32_t>(at + kLength),
        .third = areas_.descriptor.load_relaxed<uint16_t>(at + kId),
        .fourth = flags};
    next = advanced(next, 1, size_);
    if (log_) elements_.push_back(descriptor);
    if (!TRY(add_descriptor(descriptor, builder, chain))) break;
  }
  return builder.finish();
}

Result<void> PackedRing::walk_table(const RingDescriptor& indirect, ChainBuilder& builder) {
  if (!indirect_) return fail(Error::invalid("INDIRECT without VIRTIO_F_INDIRECT_DESC"));
  const auto table =
      TRY(IndirectTable::open(*memory_, indirect.address, indirect.length, table_slices_));
  if (table.entries() > size_) {
    return fail(Error::invalid(
        format_text("an indirect table of {} entries in a ring of {}", table.entries(), size_)));
  }
  // The entries follow one another; only WRITE counts in their flags (§2.8.7).
  for (uint32_t index = 0; index < table.entries(); ++index) {
    const RingDescriptor entry = TRY(table.entry(index));
    if (entry.fourth & VRING_DESC_F_INDIRECT) return fail(Error::invalid("INDIRECT in a table"));
    TRY(builder.add(entry.address, entry.length, entry.fourth & VRING_DESC_F_WRITE));
  }
  return {};
}

void PackedRing::undo_pop(const DescriptorChain& chain) {
  CHECK(ids_out_[chain.id_]);
  ids_out_[chain.id_] = false;
  descriptors_out_ -= chain.descriptors_;
  if (chain.replayed_) {
    --replayed_;
    return;
  }
  if (log_) log_->undo_take(chain.slot_);
  if (avail_.index < chain.descriptors_) avail_.wrap_counter = !avail_.wrap_counter;
  const uint32_t below = avail_.index < chain.descriptors_ ? size_ : 0;
  avail_.index = static_cast<uint16_t>(avail_.index + below - chain.descriptors_);
}

PackedRing::UsedFlags PackedRing::fill_used(const DescriptorChain& chain, uint32_t written) {
  CHECK(ids_out_[chain.id_]);
  ids_out_[chain.id_] = false;
  descriptors_out_ -= chain.descriptors_;
  const size_t at = offset_of(used_.index);
  areas_.descriptor.store_relaxed<uint16_t>(at + kId, chain.id_);
  areas_.descriptor.store_relaxed<uint32_t>(at + kLength, written);
  const uint16_t wrap = used_.wrap_counter ? kAvail | kUsed : 0;
  const uint16_t write = written != 0 ? VRING_DESC_F_WRITE : 0;
  used_ = advanced(used_, chain.descriptors_, size_);
  unsignalled_ += chain.descriptors_;
  return {.at = at, .flags = static_cast<uint16_t>(wrap | write)};
}

void PackedRing::show_used(const UsedFlags& used) {
  areas_.descriptor.store_release<uint16_t>(used.at + kFlags, used.flags);
  dirty_.mark_descriptors(used.at, sizeof(RingDescriptor));
}

void PackedRing::push_used(const DescriptorChain& chain, uint32_t written) {
  const UsedFlags used = fill_used(chain, written);
  if (log_) log_->begin_used(chain.slot_, used_);
  show_used(used);
  if (log_) log_->finish_used(chain.slot_);
}

void PackedRing::push_used_together(std::span<const UsedChain> chains) {
  CHECK(!log_);
  if (chains.empty()) return;
  // The driver looks at them in order: it sees none before the first.
  const UsedFlags first = fill_used(chains.front().chain, chains.front().written);
  for (const UsedChain& used : chains.subspan(1)) show_used(fill_used(used.chain, used.written));
  show_used(first);
}

bool PackedRing::interrupt_due() {
  const uint64_t advanced = std::exchange(unsignalled_, 0);
  if (advanced == 0) return false;
  // Either the driver sees the used descriptors, or we see that it waits for them (§2.8.10).
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const uint32_t event = areas_.driver.load_relaxed<uint32_t>(0);
  const uint16_t mode = event >> 16 & kModeMask;
  if (mode == VRING_PACKED_EVENT_FLAG_DISABLE) return false;
  if (mode != VRING_PACKED_EVENT_FLAG_DESC || !event_idx_) return true;
  return passes_driver_event(static_cast<uint16_t>(event), advanced);
}

bool PackedRing::passes_driver_event(uint16_t off_wrap, uint64_t advanced) const {
  if (advanced >= size_) return true;  // every element was passed
  // Counted from the start of the lap that `used_` is in: an event of the former lap is negative.
  const bool same_lap = ((off_wrap & kWrap) != 0) == used_.wrap_counter;
  const uint16_t offset = off_wrap & ~kWrap;
  const uint16_t event = same_lap ? offset : static_cast<uint16_t>(offset - size_);
  return passes_event(event, used_.index, static_cast<uint16_t>(advanced));
}

}  // namespace crosvm
