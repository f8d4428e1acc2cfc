#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "disk/qcow2/metadata_map.h"
#include "disk/qcow2/qcow2_damage.h"
#include "disk/qcow2/qcow2_layout.h"
#include "disk/qcow2/table_cache.h"

namespace crosvm {

/// Adjacent clusters of the file.
struct ClusterRun {
  uint64_t first = 0;
  uint64_t count = 0;
};

/// Entry `index` of a refcount block of `1 << order` bits an entry.
uint64_t load_refcount(std::span<const std::byte> block, uint64_t index, uint32_t order);
void store_refcount(std::span<std::byte> block, uint64_t index, uint32_t order, uint64_t value);

/// How often each cluster of the file is used: the refcount table and its blocks. What is here is
/// the truth; the file is told of it by commits. Layout, map and damage outlive it.
class Refcounts {
 public:
  struct Allocated {
    ClusterRun run;
    bool is_fresh = false;  ///< new in the file: reads as zeroes
  };

  Refcounts(const Qcow2Layout& layout, MetadataMap& map, Qcow2Damage& damage, size_t cache_bytes);

  /// The table as it is in the file of `file_bytes`, at `offset`.
  void set_table(uint64_t offset, std::vector<uint64_t> entries, uint64_t file_bytes);
  void set_file_bytes(uint64_t bytes) { file_bytes_ = bytes; }

  /// Takes one to `most` adjacent free clusters, which nothing refers to yet.
  Qcow2Need allocate(uint64_t most, ClusterUse use, Allocated& taken) {
    return take(1, most, use, hint_, taken);
  }
  /// Takes exactly `count` adjacent ones.
  Qcow2Need allocate_adjacent(uint64_t count, ClusterUse use, Allocated& taken);
  Qcow2Need get(uint64_t cluster, uint64_t& refcount);
  /// One use less. At none the cluster is free.
  Qcow2Need decrease(uint64_t cluster);

  /// A table that has to move has found its place in the file.
  Qcow2Need prepare_commit() { return place_table(); }

  const std::vector<uint64_t>& table() const { return table_; }
  uint64_t table_offset() const { return table_offset_; }
  TableCache& blocks() { return blocks_; }

  // What a commit has to do with the table.
  struct TableChange {
    bool moved = false;
    size_t from = 0;  // entries
    size_t to = 0;
    bool any() const { return moved || from < to; }
  };
  const TableChange& change() const { return change_; }
  TableChange take_change() { return std::exchange(change_, {}); }
  void give_back(const TableChange& change);
  /// Clusters of tables that have moved, to be freed once that is stable.
  std::vector<ClusterRun> take_freed() { return std::exchange(freed_, {}); }

 private:
  Qcow2Need take(uint64_t least, uint64_t most, ClusterUse use, uint64_t& from, Allocated& taken);
  Qcow2Need find_run(uint64_t least, uint64_t most, uint64_t& from, ClusterRun& found);
  Qcow2Need block_of(uint64_t cluster, CachedTable*& block);
  Qcow2Need add_block(uint64_t cluster);
  Qcow2Need grow_table(uint64_t block);
  Qcow2Need place_table();
  void mark_table(size_t index);
  void set(CachedTable& block, uint64_t cluster, uint64_t value);

  const Qcow2Layout& layout_;
  MetadataMap& map_;
  Qcow2Damage& damage_;
  TableCache blocks_;
  std::vector<uint64_t> table_;
  uint64_t table_offset_ = 0;
  uint64_t placed_clusters_ = 0;  // of the table, at that offset
  bool must_move_ = false;
  TableChange change_;
  std::vector<ClusterRun> freed_;
  uint64_t file_bytes_ = 0;
  uint64_t hint_ = 0;           // no cluster below is free
  uint64_t adjacent_from_ = 0;  // where the search for many goes on
  uint64_t fresh_from_ = 0;     // clusters from here on have never been used
};

}  // namespace crosvm
