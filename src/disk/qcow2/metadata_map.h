#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace crosvm {

/// What a cluster of the file is to us. Whatever is not metadata is kData, used or not.
enum class ClusterUse : uint8_t {
  kData,
  kHeader,
  kL1,
  kRefcountTable,
  kRefcountBlock,
  kL2,
  kSnapshotTable,
  kSnapshotL1,
  kSnapshotL2,  ///< never changed, whether or not the disk uses it, too
  kBitmap,      ///< of the dirty bitmaps of other programs; only a check of the image looks
  kWalkedL2,    ///< an L2 table that a check of the image has been through
  kComparedL2,  ///< one, the flags of which it has compared, too
  kContested,   ///< claimed twice: the image is damaged; neither read nor written
};

/// Which clusters of a file hold metadata: asked before every write, whether it is one of metadata
/// or of data. Memory follows how many there are, wherever they lie.
class MetadataMap {
 public:
  /// The most clusters of a file that this can tell apart.
  static constexpr uint64_t kMostClusters = 1ULL << 37;
  /// The most of them that are to be metadata. The largest tables of a disk without snapshots name
  /// fewer; the map takes 64 MiB then, and half of that more while it grows.
  static constexpr uint64_t kMostClaimed = 5'500'000;

  MetadataMap();

  ClusterUse use(uint64_t cluster) const {
    return static_cast<ClusterUse>(slots_[find(cluster)] & kUseMask);
  }
  bool is_all(uint64_t first, uint64_t count, ClusterUse use) const {
    for (uint64_t i = first; i < first + count; ++i) {
      if (this->use(i) != use) return false;
    }
    return true;
  }
  /// Whether `count` more may be claimed. Nothing goes wrong when they are nevertheless; memory is
  /// taken. As a Result: `no_room`.
  bool has_room(uint64_t count) const { return claimed_ + count <= kMostClaimed; }
  Result<void> expect_room(uint64_t count, const std::string& object) const {
    return has_room(count) ? Result<void>() : fail(no_room(object));
  }
  /// What to say then of `object`: not_supported, with the fix.
  static Error no_room(const std::string& object);
  /// Claims clusters, below kMostClusters, that have been kData. Whether they have.
  bool claim(uint64_t first, uint64_t count, ClusterUse use);
  void release(uint64_t cluster);
  void set(uint64_t cluster, ClusterUse use);

 private:
  static constexpr unsigned kUseBits = 4;
  static constexpr uint64_t kUseMask = (1 << kUseBits) - 1;

  /// Where a cluster is looked for first. An image cannot know which ones meet there.
  size_t home_of(uint64_t cluster) const {
    constexpr uint64_t kMix = 0x9E37'79B9'7F4A'7C15;
    uint64_t mixed = (cluster ^ key_) * kMix;
    mixed = (mixed ^ (mixed >> 32)) * kMix;
    return static_cast<size_t>(mixed >> 32) & mask_;
  }
  /// Its slot, or the empty one where it belongs.
  size_t find(uint64_t cluster) const {
    size_t at = home_of(cluster);
    while (slots_[at] != 0 && slots_[at] >> kUseBits != cluster) at = (at + 1) & mask_;
    return at;
  }
  void grow();

  // A hash table. A slot has the cluster and its use; that of nothing is 0.
  std::vector<uint64_t> slots_;
  size_t mask_;
  uint64_t claimed_ = 0;
  const uint64_t key_;
};

}  // namespace crosvm
