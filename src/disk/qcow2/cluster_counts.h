#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace crosvm {

/// How often each cluster of a file is used. Memory follows how many are.
class ClusterCounts {
 public:
  static constexpr uint64_t kMostClusters = 1ULL << 34;
  static constexpr uint16_t kMany = UINT16_MAX;  ///< this often, or more

  uint64_t get(uint64_t cluster) const {
    const uint64_t page = cluster / kPage;
    return page < pages_.size() && pages_[page] ? (*pages_[page])[cluster % kPage] : 0;
  }
  /// `cluster` is below kMostClusters + 1000.
  void add(uint64_t cluster) {
    const uint64_t page = cluster / kPage;
    if (page >= pages_.size()) pages_.resize(page + 1);
    if (!pages_[page]) pages_[page] = std::make_unique<Page>();
    uint16_t& count = (*pages_[page])[cluster % kPage];
    if (count < kMany) ++count;
    end_ = std::max(end_, cluster + 1);
  }
  void remove(uint64_t cluster) {
    if (get(cluster) > 0) --(*pages_[cluster / kPage])[cluster % kPage];
  }
  bool any(uint64_t first, uint64_t count) const {
    for (uint64_t i = first; i < first + count;) {
      const uint64_t page = i / kPage;
      if (page >= pages_.size()) return false;
      if (!pages_[page]) {
        i = (page + 1) * kPage;
      } else if ((*pages_[page])[i++ % kPage] != 0) {
        return true;
      }
    }
    return false;
  }
  /// No cluster from here on is used.
  uint64_t end() const { return end_; }

 private:
  static constexpr uint64_t kPage = 32768;
  using Page = std::array<uint16_t, kPage>;
  std::vector<std::unique_ptr<Page>> pages_;
  uint64_t end_ = 0;
};

}  // namespace crosvm
