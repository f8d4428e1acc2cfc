#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>

#include "memory/guest_memory.h"

namespace crosvm {

/// Guest RAM of a rig: two adjacent regions from address 0 and one at 4 GiB, above a hole, with an
/// allocator of buffers. What a host lacks (a memfd, memory) ends the test.
class RigMemory {
 public:
  static constexpr uint64_t kRegionBytes = 16 << 20;
  static constexpr GuestAddress kBorder{kRegionBytes};      ///< between the adjacent regions
  static constexpr GuestAddress kLowEnd{2 * kRegionBytes};  ///< the hole begins
  static constexpr GuestAddress kHigh{uint64_t{4} << 30};   ///< and ends
  static constexpr GuestAddress kEnd{kHigh.value + kRegionBytes};

  /// Bytes on both sides of `kBorder` that `allocate` leaves alone, for buffers across it.
  static constexpr uint64_t kBorderRoom = 64 << 10;

  /// `high_bytes`: of the region at 4 GiB, for loads with large buffers.
  explicit RigMemory(uint64_t high_bytes = kRegionBytes);

  const GuestMemory& guest() const { return memory_; }
  /// A buffer in one region, the regions taking turns. Errors: none; the test ends when all RAM is
  /// taken.
  GuestAddress allocate(uint64_t bytes, uint64_t alignment = 16);
  /// Gives back what `allocate` returned.
  void free(GuestAddress address);

  void write(GuestAddress to, std::span<const std::byte> bytes) const;
  void read(GuestAddress from, std::span<std::byte> bytes) const;
  void fill(GuestAddress to, uint64_t bytes, std::byte value) const;

 private:
  using Ranges = std::map<uint64_t, uint64_t>;  // start to bytes
  bool allocate_in(Ranges& free, uint64_t bytes, uint64_t alignment, GuestAddress& address);

  GuestMemory memory_;
  std::array<Ranges, 3> free_;                             // of each region
  std::map<uint64_t, std::pair<size_t, uint64_t>> taken_;  // start to region and bytes
  size_t turn_ = 0;
};

}  // namespace crosvm
