#include "disk/qcow2/metadata_map.h"

#include "base/result.h"

namespace crosvm {

bool MetadataMap::claim(uint64_t first, uint64_t count, ClusterUse use) {
  bool free = true;
  for (uint64_t i = first; i < first + count; ++i) {
    const bool taken = this->use(i) != ClusterUse::kData;
    if (taken) free = false;
    set(i, taken ? ClusterUse::kContested : use);
  }
  return free;
}

void MetadataMap::set(uint64_t cluster, ClusterUse use) {
  CHECK(cluster < kMostClusters);
  const uint64_t page = cluster / kPage;
  if (page >= pages_.size()) pages_.resize(page + 1);
  if (!pages_[page]) pages_[page] = std::make_unique<Page>();
  (*pages_[page])[cluster % kPage] = use;
}

}  // namespace crosvm
