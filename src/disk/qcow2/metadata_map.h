#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

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
  kContested,   ///< claimed twice: the image is damaged; neither read nor written
};

/// Which clusters of a file hold metadata: asked before every write, whether it is one of metadata
/// or of data. Memory follows how many there are.
class MetadataMap {
 public:
  /// The most clusters of a file that this can tell apart.
  static constexpr uint64_t kMostClusters = 1ULL << 37;

  ClusterUse use(uint64_t cluster) const {
    const uint64_t page = cluster / kPage;
    if (page >= pages_.size() || !pages_[page]) return ClusterUse::kData;
    return (*pages_[page])[cluster % kPage];
  }
  bool is_all(uint64_t first, uint64_t count, ClusterUse use) const {
    for (uint64_t i = first; i < first + count; ++i) {
      if (this->use(i) != use) return false;
    }
    return true;
  }
  /// Claims clusters, below kMostClusters, that have been kData. Whether they have.
  bool claim(uint64_t first, uint64_t count, ClusterUse use);
  void release(uint64_t cluster) {
    if (use(cluster) != ClusterUse::kData) (*pages_[cluster / kPage])[cluster % kPage] = {};
  }
  void set(uint64_t cluster, ClusterUse use);

 private:
  static constexpr uint64_t kPage = 32768;
  using Page = std::array<ClusterUse, kPage>;
  std::vector<std::unique_ptr<Page>> pages_;
};

}  // namespace crosvm
