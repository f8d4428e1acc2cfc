#include "vhost/inflight_queue.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

// Offsets in the header: both layouts begin alike.
constexpr size_t kVersion = 8;
constexpr size_t kDescNum = 10;
constexpr size_t kSplitLastBatchHead = 12;
constexpr size_t kSplitUsedIdx = 14;
constexpr size_t kPackedFreeHead = 12;
constexpr size_t kPackedOldFreeHead = 14;
constexpr size_t kPackedUsedIdx = 16;
constexpr size_t kPackedOldUsedIdx = 18;
constexpr size_t kPackedUsedWrap = 20;
constexpr size_t kPackedOldUsedWrap = 21;
// Offsets in an entry.
constexpr size_t kInflight = 0;
constexpr size_t kSplitNext = 6;
constexpr size_t kPackedNext = 2;
constexpr size_t kPackedLast = 4;
constexpr size_t kPackedNum = 6;
constexpr size_t kCounter = 8;
constexpr size_t kPackedId = 16;
constexpr size_t kPackedFlags = 18;
constexpr size_t kPackedLength = 20;
constexpr size_t kPackedAddress = 24;

constexpr uint16_t kOurVersion = 1;

template <class T>
T load(std::span<const std::byte> copy, size_t offset) {
  T value;
  std::memcpy(&value, copy.data() + offset, sizeof(T));
  return value;
}

Error damaged(uint16_t queue, std::string_view what) {
  return Error::invalid(format_text("what is recorded of queue {} is damaged: {}", queue, what));
}

}  // namespace

void InflightQueue::forget(std::byte* queue) {
  __atomic_store_n(reinterpret_cast<uint16_t*>(queue + kVersion), uint16_t{0}, __ATOMIC_RELEASE);
}

std::optional<RingPosition> InflightQueue::packed_used(const std::byte* queue) {
  const std::span header(queue, kPackedOldUsedWrap + 1);
  if (load<uint16_t>(header, kVersion) == 0) return std::nullopt;
  return RingPosition{.index = load<uint16_t>(header, kPackedOldUsedIdx),
                      .wrap_counter = load<uint8_t>(header, kPackedOldUsedWrap) != 0};
}

Result<InflightLog::Standing> InflightQueue::open(const Ring& ring) {
  packed_ = ring.packed;
  entries_ = region_->queue_size();
  start_ = region_->at(index_, packed_);
  if (!start_ || ring.size > entries_) {
    return fail(
        Error::invalid(format_text("queue {} of {} elements does not fit", index_, ring.size)));
  }
  counter_ = 0;
  next_.assign(packed_ ? entries_ : 0, 0);
  last_.assign(packed_ ? entries_ : 0, 0);
  std::vector<std::byte> copy(entry(entries_));
  std::memcpy(copy.data(), start_, copy.size());
  const auto version = load<uint16_t>(copy, kVersion);
  if (version == 0) {
    format(ring);
    return Standing{.used = ring.base, .requests = {}};
  }
  if (version != kOurVersion)
    return fail(damaged(index_, format_text("its version is {}", version)));
  const auto entries = load<uint16_t>(copy, kDescNum);
  // Some back-ends note the size of the ring, others that of the table.
  if (entries != entries_ && entries != ring.size) {
    return fail(damaged(index_, format_text("{} entries", entries)));
  }
  return packed_ ? recover_packed(ring, copy) : recover_split(ring, copy);
}

void InflightQueue::format(const Ring& ring) {
  std::memset(start_, 0, entry(entries_));
  used_ = ring.base;
  last_used_head_ = 0;
  store<uint16_t>(kDescNum, entries_);
  if (packed_) {
    thread_free_list(std::vector<bool>(entries_));
    for (const size_t at : {kPackedUsedIdx, kPackedOldUsedIdx}) store<uint16_t>(at, used_.index);
    for (const size_t at : {kPackedUsedWrap, kPackedOldUsedWrap}) {
      store<uint8_t>(at, used_.wrap_counter);
    }
  } else {
    store<uint16_t>(kSplitUsedIdx, used_.index);
  }
  store<uint16_t>(kVersion, kOurVersion);
}

Result<InflightLog::Standing> InflightQueue::recover_split(const Ring& ring,
                                                           std::span<std::byte> copy) {
  // The last batch was given back, but perhaps not struck off.
  const uint16_t batch = ring.used_idx - load<uint16_t>(copy, kSplitUsedIdx);
  if (batch > ring.size) return fail(damaged(index_, "it does not fit the used ring"));
  last_used_head_ = load<uint16_t>(copy, kSplitLastBatchHead);
  uint16_t head = last_used_head_;
  for (uint16_t i = 0; i < batch; ++i) {
    if (head >= ring.size) return fail(damaged(index_, "its list of used heads"));
    copy[entry(head) + kInflight] = std::byte{0};
    store<uint8_t>(entry(head) + kInflight, 0);
    head = load<uint16_t>(copy, entry(head) + kSplitNext);
  }
  used_ = {.index = ring.used_idx};
  store<uint16_t>(kSplitUsedIdx, used_.index);

  Standing standing{.used = used_, .requests = {}};
  for (uint16_t slot = 0; slot < ring.size; ++slot) {
    if (copy[entry(slot) + kInflight] != std::byte{0}) standing.requests.push_back({slot, {}});
  }
  const auto age = [&](const Request& request) {
    return load<uint64_t>(copy, entry(request.slot) + kCounter);
  };
  std::ranges::sort(standing.requests, {}, age);
  if (!standing.requests.empty()) counter_ = age(standing.requests.back()) + 1;
  return standing;
}

Result<InflightLog::Standing> InflightQueue::recover_packed(const Ring& ring,
                                                            std::span<std::byte> copy) {
  const RingPosition old{load<uint16_t>(copy, kPackedOldUsedIdx),
                         load<uint8_t>(copy, kPackedOldUsedWrap) != 0};
  const RingPosition now{load<uint16_t>(copy, kPackedUsedIdx),
                         load<uint8_t>(copy, kPackedUsedWrap) != 0};
  if (old.index >= ring.size || now.index >= ring.size) {
    return fail(damaged(index_, "it does not fit the ring"));
  }
  // The last batch was given back if the driver can see it.
  const auto flags = ring.descriptor_area.load_acquire<uint16_t>(16u * old.index + 14);
  const bool avail = (flags >> VRING_PACKED_DESC_F_AVAIL & 1) != 0;
  const bool used = (flags >> VRING_PACKED_DESC_F_USED & 1) != 0;
  const bool still_available = avail == old.wrap_counter && used != old.wrap_counter;
  const bool committed = now != old && !still_available;
  used_ = committed ? now : old;
  uint16_t free = load<uint16_t>(copy, committed ? kPackedFreeHead : kPackedOldFreeHead);
  for (uint16_t i = 0; i < entries_ && free < entries_; ++i) {
    copy[entry(free) + kInflight] = std::byte{0};
    store<uint8_t>(entry(free) + kInflight, 0);
    free = load<uint16_t>(copy, entry(free) + kPackedNext);
  }

  Standing standing{.used = used_, .requests = {}};
  std::vector<bool> out(entries_);
  size_t elements = 0;
  for (uint16_t slot = 0; slot < entries_; ++slot) {
    if (copy[entry(slot) + kInflight] == std::byte{0}) continue;
    standing.requests.push_back(TRY(packed_request(copy, slot, out)));
    elements += standing.requests.back().elements.size();
  }
  if (elements > ring.size) return fail(damaged(index_, "more elements than the ring has"));
  const auto age = [&](const Request& request) {
    return load<uint64_t>(copy, entry(request.slot) + kCounter);
  };
  std::ranges::sort(standing.requests, {}, age);
  if (!standing.requests.empty()) counter_ = age(standing.requests.back()) + 1;
  for (const size_t at : {kPackedUsedIdx, kPackedOldUsedIdx}) store<uint16_t>(at, used_.index);
  for (const size_t at : {kPackedUsedWrap, kPackedOldUsedWrap}) {
    store<uint8_t>(at, used_.wrap_counter);
  }
  thread_free_list(out);
  return standing;
}

Result<InflightLog::Request> InflightQueue::packed_request(std::span<const std::byte> copy,
                                                           uint16_t slot, std::vector<bool>& out) {
  const auto count = load<uint16_t>(copy, entry(slot) + kPackedNum);
  if (count == 0) return fail(damaged(index_, "a request of no elements"));
  Request request{.slot = slot, .elements = {}};
  uint16_t at = slot;
  for (uint16_t i = 0; i < count; ++i) {
    if (at >= entries_ || out[at]) return fail(damaged(index_, "its lists of elements"));
    out[at] = true;
    last_[slot] = at;
    request.elements.push_back({.address = load<uint64_t>(copy, entry(at) + kPackedAddress),
                                .length = load<uint32_t>(copy, entry(at) + kPackedLength),
                                .third = load<uint16_t>(copy, entry(at) + kPackedId),
                                .fourth = load<uint16_t>(copy, entry(at) + kPackedFlags)});
    next_[at] = load<uint16_t>(copy, entry(at) + kPackedNext);
    at = next_[at];
  }
  return request;
}

void InflightQueue::thread_free_list(const std::vector<bool>& out) {
  uint16_t head = entries_;  // one past the last entry ends the list
  for (uint16_t slot = entries_; slot-- > 0;) {
    if (out[slot]) continue;
    next_[slot] = head;
    store<uint16_t>(entry(slot) + kPackedNext, head);
    head = slot;
  }
  free_head_ = head;
  store<uint16_t>(kPackedFreeHead, head);
  store<uint16_t>(kPackedOldFreeHead, head);
}

uint16_t InflightQueue::take(uint16_t head, std::span<const RingDescriptor> elements) {
  const uint16_t slot = packed_ ? free_head_ : head;
  if (packed_) {
    // The ring allows no more elements at a time than there are entries.
    uint16_t at = free_head_;
    for (const RingDescriptor& element : elements) {
      CHECK(at < entries_);
      store<uint64_t>(entry(at) + kPackedAddress, element.address);
      store<uint32_t>(entry(at) + kPackedLength, element.length);
      store<uint16_t>(entry(at) + kPackedId, element.third);
      store<uint16_t>(entry(at) + kPackedFlags, element.fourth);
      last_[slot] = at;
      at = next_[at];
    }
    store<uint16_t>(entry(slot) + kPackedLast, last_[slot]);
    store<uint16_t>(entry(slot) + kPackedNum, static_cast<uint16_t>(elements.size()));
    free_head_ = at;
  }
  store<uint64_t>(entry(slot) + kCounter, counter_++);
  store<uint8_t>(entry(slot) + kInflight, 1);
  if (packed_) {
    store<uint16_t>(kPackedFreeHead, free_head_);
    store<uint16_t>(kPackedOldFreeHead, free_head_);
  }
  return slot;
}

void InflightQueue::undo_take(uint16_t slot) {
  store<uint8_t>(entry(slot) + kInflight, 0);
  if (!packed_) return;
  next_[last_[slot]] = free_head_;
  store<uint16_t>(entry(last_[slot]) + kPackedNext, free_head_);
  free_head_ = slot;
  store<uint16_t>(kPackedFreeHead, slot);
  store<uint16_t>(kPackedOldFreeHead, slot);
}

void InflightQueue::begin_used(uint16_t slot, RingPosition used) {
  used_ = used;
  if (!packed_) {
    store<uint16_t>(entry(slot) + kSplitNext, last_used_head_);
    last_used_head_ = slot;
    store<uint16_t>(kSplitLastBatchHead, slot);
    return;
  }
  next_[last_[slot]] = free_head_;
  store<uint16_t>(entry(last_[slot]) + kPackedNext, free_head_);
  free_head_ = slot;
  store<uint16_t>(kPackedFreeHead, slot);
  store<uint16_t>(kPackedUsedIdx, used.index);
  store<uint8_t>(kPackedUsedWrap, used.wrap_counter);
}

void InflightQueue::finish_used(uint16_t slot) {
  store<uint8_t>(entry(slot) + kInflight, 0);
  if (!packed_) return store<uint16_t>(kSplitUsedIdx, used_.index);
  store<uint16_t>(kPackedOldFreeHead, free_head_);
  store<uint16_t>(kPackedOldUsedIdx, used_.index);
  store<uint8_t>(kPackedOldUsedWrap, used_.wrap_counter);
}

}  // namespace crosvm
