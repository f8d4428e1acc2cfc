#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm {

/// Some buffers of a chain in order, taken as one run of bytes: every copy is bounds-checked and
/// goes across the borders of descriptors. Valid while the GuestMemory lives.
class ChainBuffers {
 public:
  ChainBuffers() = default;
  explicit ChainBuffers(std::span<const GuestSlice> slices);

  /// Bytes in all.
  uint64_t size() const { return size_; }
  std::span<const GuestSlice> slices() const { return slices_; }

  /// Copies out `to.size()` bytes from `offset`. Errors: result_out_of_range past the end.
  Result<void> read_bytes(uint64_t offset, std::span<std::byte> to) const;
  /// Copies in. Errors: result_out_of_range past the end.
  Result<void> write_bytes(uint64_t offset, std::span<const std::byte> from) const;
  template <GuestPod T>
  Result<T> read(uint64_t offset = 0) const {
    T value;
    TRY(read_bytes(offset, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  template <GuestPod T>
  Result<void> write(uint64_t offset, const T& value) const {
    return write_bytes(offset, std::as_bytes(std::span(&value, 1)));
  }

  /// The slices of [offset, offset + length), for a system call that takes an iovec. Errors:
  /// result_out_of_range past the end.
  Result<std::vector<GuestSlice>> cut(uint64_t offset, uint64_t length) const;

 private:
  std::span<const GuestSlice> slices_;
  uint64_t size_ = 0;
};

/// One request of the driver: the buffers that a head descriptor leads to, already copied out of
/// the ring and checked (virtio 1.3 §2.7.4.1, §2.8.7). Goes back exactly once, to the Virtqueue
/// that it came from; dropping it instead leaves the driver without its buffer until a reset.
class DescriptorChain {
 public:
  DescriptorChain(DescriptorChain&&) noexcept = default;
  DescriptorChain& operator=(DescriptorChain&&) noexcept = default;

  ChainBuffers device_readable() const { return ChainBuffers(std::span(slices_).first(readable_)); }
  ChainBuffers device_writable() const {
    return ChainBuffers(std::span(slices_).subspan(readable_));
  }

 private:
  friend class ChainBuilder;
  friend class SplitRing;
  friend class PackedRing;
  friend class Virtqueue;
  DescriptorChain() = default;

  std::vector<GuestSlice> slices_;  // the readable ones, then the writable ones
  size_t readable_ = 0;
  uint32_t writable_bytes_ = 0;
  uint16_t id_ = 0;           // split: the head's index; packed: the buffer id
  uint16_t descriptors_ = 0;  // ring elements it takes; packed rings advance by this
  uint16_t slot_ = 0;         // in the log of requests in flight, if there is one
  bool replayed_ = false;     // taken from that log instead of the ring
};

/// A chain on its way back, and the bytes written to its device-writable part.
struct UsedChain {
  DescriptorChain chain;
  uint32_t written = 0;
};

}  // namespace crosvm
