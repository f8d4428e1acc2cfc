#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "memory/guest_memory.h"
#include "virtio/chain_builder.h"
#include "virtio/rig/rig_memory.h"
#include "virtio/ring.h"
#include "virtio/virtqueue.h"

namespace crosvm {

/// The memory of a ring of either kind as a driver allocates it, zeroed.
class RingMemory {
 public:
  RingMemory(RigMemory& memory, bool packed, uint16_t size);

  uint16_t size() const { return size_; }
  const VringAddresses& addresses() const { return addresses_; }
  void clear() const;

 protected:
  uint16_t size_;
  VringAddresses addresses_;
  GuestSlice descriptors_;
  GuestSlice driver_;
  GuestSlice device_;
};

/// A split ring's fields, to be written as a driver or an attacker likes. No value is checked.
class SplitLayout : public RingMemory {
 public:
  SplitLayout(RigMemory& memory, uint16_t size) : RingMemory(memory, false, size) {}

  void set_descriptor(uint16_t index, const RingDescriptor& value) const {
    const auto words = std::bit_cast<std::array<uint64_t, 2>>(value);
    descriptors_.store_relaxed<uint64_t>(16u * index, words[0]);
    descriptors_.store_relaxed<uint64_t>(16u * index + 8, words[1]);
  }
  void set_avail_flags(uint16_t flags) const { driver_.store_relaxed<uint16_t>(0, flags); }
  void set_avail_idx(uint16_t idx) const { driver_.store_release<uint16_t>(2, idx); }
  void set_avail(uint16_t slot, uint16_t head) const {
    driver_.store_relaxed<uint16_t>(4 + 2u * slot, head);
  }
  void set_used_event(uint16_t event) const {
    driver_.store_relaxed<uint16_t>(4 + 2u * size_, event);
  }
  uint16_t avail_idx() const { return driver_.load_relaxed<uint16_t>(2); }
  uint16_t used_flags() const { return device_.load_relaxed<uint16_t>(0); }
  uint16_t used_idx() const { return device_.load_acquire<uint16_t>(2); }
  uint32_t used_id(uint16_t slot) const { return device_.load_relaxed<uint32_t>(4 + 8u * slot); }
  uint32_t used_length(uint16_t slot) const {
    return device_.load_relaxed<uint32_t>(8 + 8u * slot);
  }
  uint16_t avail_event() const { return device_.load_relaxed<uint16_t>(4 + 8u * size_); }
  void set_used_idx(uint16_t idx) const { device_.store_relaxed<uint16_t>(2, idx); }
};

/// The same of a packed ring.
class PackedLayout : public RingMemory {
 public:
  static constexpr uint16_t kAvail = 1 << VRING_PACKED_DESC_F_AVAIL;
  static constexpr uint16_t kUsed = 1 << VRING_PACKED_DESC_F_USED;

  PackedLayout(RigMemory& memory, uint16_t size) : RingMemory(memory, true, size) {}

  /// AVAIL and USED as they mark an available descriptor.
  static uint16_t available(bool wrap_counter) { return wrap_counter ? kAvail : kUsed; }

  void set_body(uint16_t index, uint64_t address, uint32_t length, uint16_t id) const {
    descriptors_.store_relaxed<uint64_t>(16u * index, address);
    descriptors_.store_relaxed<uint32_t>(16u * index + 8, length);
    descriptors_.store_relaxed<uint16_t>(16u * index + 12, id);
  }
  void set_flags(uint16_t index, uint16_t flags) const {
    descriptors_.store_release<uint16_t>(16u * index + 14, flags);
  }
  uint16_t flags(uint16_t index) const {
    return descriptors_.load_acquire<uint16_t>(16u * index + 14);
  }
  uint32_t length(uint16_t index) const {
    return descriptors_.load_relaxed<uint32_t>(16u * index + 8);
  }
  uint16_t id(uint16_t index) const {
    return descriptors_.load_relaxed<uint16_t>(16u * index + 12);
  }
  /// `off_wrap`: the offset, and the wrap counter as bit 15.
  void set_driver_event(uint16_t off_wrap, uint16_t flags) const {
    driver_.store_relaxed<uint32_t>(0, off_wrap | uint32_t{flags} << 16);
  }
  uint16_t device_event() const { return static_cast<uint16_t>(event()); }
  uint16_t device_event_flags() const { return static_cast<uint16_t>(event() >> 16); }

 private:
  uint32_t event() const { return device_.load_relaxed<uint32_t>(0); }
};

}  // namespace crosvm
