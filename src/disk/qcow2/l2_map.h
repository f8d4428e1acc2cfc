#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "disk/qcow2/qcow2_damage.h"
#include "disk/qcow2/qcow2_layout.h"
#include "disk/qcow2/refcounts.h"
#include "disk/qcow2/table_cache.h"

namespace crosvm {

/// Bytes of the disk that are alike and lie together.
struct MappedRun {
  Qcow2UnitKind kind = Qcow2UnitKind::kUnallocated;
  uint64_t length = 0;  ///< bytes, not 0
  uint64_t host = 0;    ///< of kData: where the first of them lies
  Qcow2Entry entry;     ///< of the first cluster
};

/// Where the bytes of the disk lie: the L1 table and the L2 tables. What is here is the truth; the
/// file is told of it by commits.
class L2Map {
 public:
  /// Entries of the L1 table that the file does not know of.
  struct L1Change {
    bool moved = false;
    size_t from = 0;
    size_t to = 0;
    bool any() const { return moved || from < to; }
  };

  /// All outlive it.
  L2Map(const Qcow2Layout& layout, MetadataMap& map, Refcounts& refcounts, Qcow2Damage& damage,
        size_t cache_bytes);
  void set_l1(uint64_t offset, std::vector<uint64_t> entries);

  /// The table for the byte `guest` of the disk; null where there is none, and nothing is mapped.
  Qcow2Need find_table(uint64_t guest, CachedTable*& table);
  /// The same, for changes: it is made, or copied away from snapshots, where needed. Clusters that
  /// are not used any more are added to `freed`.
  Qcow2Need writable_table(uint64_t guest, CachedTable*& table, std::vector<ClusterRun>& freed);

  /// Nobody else has the table for `guest`: what it says of its clusters' being its own holds.
  bool owns_table(uint64_t guest) const;

  Qcow2Entry entry(const CachedTable& table, uint64_t guest) const;
  void set_entry(CachedTable& table, uint64_t guest, const Qcow2Entry& entry);
  /// What is at `guest`, for at most `most` bytes and to the end of the table.
  MappedRun run(const CachedTable* table, uint64_t guest, uint64_t most) const;
  /// The bytes from `guest` to where the next table begins.
  uint64_t bytes_to_table_end(uint64_t guest) const {
    return layout_.l2_coverage() - (guest & (layout_.l2_coverage() - 1));
  }

  TableCache& tables() { return tables_; }
  const std::vector<uint64_t>& l1() const { return l1_; }
  uint64_t l1_offset() const { return l1_offset_; }
  /// Has room for `entries`, elsewhere if need be.
  Qcow2Need grow_l1(uint64_t entries, std::vector<ClusterRun>& freed);
  /// Has no more than `entries`, except for tables there are; it stays where it is.
  void shorten_l1(uint64_t entries, std::vector<ClusterRun>& freed);
  /// Forgets the tables from `entries` on.
  void drop_tables_from(uint64_t entries, std::vector<ClusterRun>& freed);
  const L1Change& change() const { return change_; }
  L1Change take_change() { return std::exchange(change_, {}); }
  void give_back(const L1Change& change);

 private:
  int broken_table(uint64_t guest);
  void set_l1_entry(uint64_t index, uint64_t value);
  void copy_table(const CachedTable& from, CachedTable& to) const;
  Qcow2Need make_table(uint64_t guest, CachedTable* old, CachedTable*& table);

  const Qcow2Layout& layout_;
  MetadataMap& map_;
  Refcounts& refcounts_;
  Qcow2Damage& damage_;
  TableCache tables_;
  std::vector<uint64_t> l1_;
  uint64_t l1_offset_ = 0;
  L1Change change_;
};

}  // namespace crosvm
