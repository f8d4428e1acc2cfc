#pragma once

#include <algorithm>
#include <cstdint>

namespace crosvm {

/// Numbers of the qcow2 format: how a disk's bytes are found (docs/interop/qcow2.txt of QEMU).
inline constexpr uint64_t kQcow2Copied = 1ULL << 63;      ///< of L1 and L2: the refcount is 1
inline constexpr uint64_t kQcow2Compressed = 1ULL << 62;  ///< of L2
inline constexpr uint64_t kQcow2Zero = 1;                 ///< of L2, without subclusters
inline constexpr uint64_t kQcow2OffsetMask = 0x00FF'FFFF'FFFF'FE00;
inline constexpr uint64_t kQcow2L1Reserved = 0x7F00'0000'0000'01FF;
inline constexpr uint64_t kQcow2L2Reserved = 0x3F00'0000'0000'01FE;  ///< not of compressed ones
inline constexpr uint64_t kQcow2RefcountTableReserved = 0x1FF;
inline constexpr uint32_t kQcow2Subclusters = 32;
inline constexpr uint64_t kQcow2AllSubclusters = 0xFFFF'FFFF;

/// An L2 entry; the bitmap is 0 without extended L2.
struct Qcow2Entry {
  uint64_t word = 0;
  uint64_t bitmap = 0;
  bool operator==(const Qcow2Entry&) const = default;

  uint64_t host() const { return word & kQcow2OffsetMask; }
  bool is_compressed() const { return (word & kQcow2Compressed) != 0; }
  bool is_copied() const { return (word & kQcow2Copied) != 0; }
};

/// What a unit is: a cluster, or a subcluster where there are such.
enum class Qcow2UnitKind : uint8_t { kUnallocated, kZero, kData, kCompressed, kBroken };

/// Where the bytes of a compressed cluster lie in the file. Some of the last sector are others'.
struct Qcow2CompressedPlace {
  uint64_t offset = 0;  ///< bytes
  uint64_t length = 0;  ///< bytes, at most 2 clusters
};

/// Arithmetic of one image; every size in bytes.
struct Qcow2Layout {
  uint32_t version = 3;
  uint32_t cluster_bits = 16;
  uint32_t refcount_order = 4;
  bool extended_l2 = false;
  bool external_data = false;

  uint64_t cluster_size() const { return 1ULL << cluster_bits; }
  uint64_t in_cluster(uint64_t offset) const { return offset & (cluster_size() - 1); }
  uint64_t cluster_start(uint64_t offset) const { return offset & ~(cluster_size() - 1); }
  uint64_t cluster_end(uint64_t offset) const { return cluster_start(offset) + cluster_size(); }
  /// How many clusters hold `bytes`.
  uint64_t clusters(uint64_t bytes) const {
    return (bytes >> cluster_bits) + (in_cluster(bytes) != 0 ? 1 : 0);
  }

  uint32_t entry_size() const { return extended_l2 ? 16 : 8; }
  uint32_t l2_bits() const { return cluster_bits - (extended_l2 ? 4 : 3); }
  uint64_t l2_entries() const { return 1ULL << l2_bits(); }
  /// Bytes of the disk that one L2 table maps.
  uint64_t l2_coverage() const { return 1ULL << (cluster_bits + l2_bits()); }
  uint64_t l1_index(uint64_t guest) const { return guest >> (cluster_bits + l2_bits()); }
  uint64_t l2_index(uint64_t guest) const { return (guest >> cluster_bits) & (l2_entries() - 1); }
  uint64_t l1_entries(uint64_t disk_bytes) const {
    return (disk_bytes >> (cluster_bits + l2_bits())) +
           ((disk_bytes & (l2_coverage() - 1)) != 0 ? 1 : 0);
  }

  uint32_t unit_bits() const { return extended_l2 ? cluster_bits - 5 : cluster_bits; }
  uint64_t unit_size() const { return 1ULL << unit_bits(); }
  uint32_t unit_index(uint64_t guest) const {
    return static_cast<uint32_t>(in_cluster(guest) >> unit_bits());
  }

  uint32_t refcount_bits() const { return 1U << refcount_order; }
  uint64_t refcounts_per_block() const { return (cluster_size() * 8) >> refcount_order; }
  uint64_t most_refcount() const {
    return refcount_order == 6 ? UINT64_MAX : (1ULL << refcount_bits()) - 1;
  }

  /// Of the unit `unit` of the cluster at `guest`.
  Qcow2UnitKind kind(const Qcow2Entry& entry, uint64_t guest, uint32_t unit) const;
  Qcow2CompressedPlace compressed_place(const Qcow2Entry& entry) const;
  /// Those bits of the L2 entry that must be 0, and are not.
  uint64_t reserved_bits(const Qcow2Entry& entry) const;
};

inline Qcow2UnitKind Qcow2Layout::kind(const Qcow2Entry& entry, uint64_t guest,
                                       uint32_t unit) const {
  using Kind = Qcow2UnitKind;
  if (entry.is_compressed()) return external_data ? Kind::kBroken : Kind::kCompressed;
  const uint64_t host = entry.host();
  // An external file has the bytes at the place where the disk has them, be it 0.
  const bool has_host = host != 0 || (external_data && entry.is_copied());
  if (in_cluster(host) != 0) return Kind::kBroken;
  if (external_data && has_host && host != cluster_start(guest)) return Kind::kBroken;
  // It says that it has a cluster of its own, and which one is lost.
  const bool has_lost_host = entry.is_copied() && !has_host;
  if (!extended_l2) {
    if ((entry.word & kQcow2Zero) != 0) return version >= 3 ? Kind::kZero : Kind::kBroken;
    if (has_lost_host) return Kind::kBroken;
    return has_host ? Kind::kData : Kind::kUnallocated;
  }
  const bool is_allocated = ((entry.bitmap >> unit) & 1) != 0;
  const bool is_zero = ((entry.bitmap >> (unit + kQcow2Subclusters)) & 1) != 0;
  if (is_allocated && (is_zero || !has_host)) return Kind::kBroken;
  if (is_zero) return Kind::kZero;
  if (has_lost_host) return Kind::kBroken;
  return is_allocated ? Kind::kData : Kind::kUnallocated;
}

inline Qcow2CompressedPlace Qcow2Layout::compressed_place(const Qcow2Entry& entry) const {
  const uint32_t shift = 62 - (cluster_bits - 8);
  const uint64_t offset = entry.word & ((1ULL << std::min(shift, 56U)) - 1);
  const uint64_t sectors = ((entry.word & (kQcow2Compressed - 1)) >> shift) + 1;
  return {.offset = offset, .length = sectors * 512 - offset % 512};
}

inline uint64_t Qcow2Layout::reserved_bits(const Qcow2Entry& entry) const {
  if (!entry.is_compressed()) {
    const bool has_zero_bit = version >= 3 && !extended_l2;
    return entry.word & (kQcow2L2Reserved | (has_zero_bit ? 0 : kQcow2Zero));
  }
  // The offset ends at bit 55, however large its field is; subclusters are none.
  const uint32_t shift = 62 - (cluster_bits - 8);
  const uint64_t above = ((1ULL << shift) - 1) & ~((1ULL << std::min(shift, 56U)) - 1);
  return (entry.word & above) | entry.bitmap;
}

}  // namespace crosvm
