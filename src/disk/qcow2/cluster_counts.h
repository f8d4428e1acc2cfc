#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace crosvm {

/// How often each cluster of a file is used. Memory follows how many are, and how often: a bit for
/// each where none is used twice.
class ClusterCounts {
 public:
  static constexpr uint64_t kMostClusters = 1ULL << 34;
  static constexpr uint64_t kMany = UINT16_MAX;  ///< this often, or more

  /// Takes about `most_bytes` of memory at most.
  explicit ClusterCounts(size_t most_bytes) : most_bytes_(most_bytes) {}

  uint64_t get(uint64_t cluster) const;
  /// `cluster` is below kMostClusters + 1000. Counts no more once it is full.
  void add(uint64_t cluster, uint64_t times = 1);
  void remove(uint64_t cluster);
  /// The first in [from, until) that is used, or `until`.
  uint64_t next_used(uint64_t from, uint64_t until) const;
  bool any(uint64_t first, uint64_t count) const {
    return next_used(first, first + count) < first + count;
  }
  /// No cluster from here on is used.
  uint64_t end() const { return end_; }
  /// There was no memory left for a use: the counts are wrong.
  bool is_full() const { return is_full_; }

 private:
  static constexpr uint64_t kPage = 32768;  // clusters
  struct Page {
    std::unique_ptr<uint64_t[]> words;
    uint32_t order = 0;  // 1 << order bits for each cluster
  };
  static constexpr size_t page_words(uint32_t order) { return (kPage << order) / 64; }
  static uint64_t most_of(uint32_t order) { return (uint64_t{1} << (1U << order)) - 1; }
  static uint64_t get(const Page& page, uint64_t index);
  static void set(Page& page, uint64_t index, uint64_t count);
  bool make_room(Page& page, uint64_t count);

  const size_t most_bytes_;
  size_t bytes_ = 0;
  bool is_full_ = false;
  std::vector<Page> pages_;
  uint64_t end_ = 0;
};

}  // namespace crosvm
