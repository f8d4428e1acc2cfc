#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "disk/qcow2/l2_map.h"
#include "disk/qcow2/metadata_map.h"
#include "disk/qcow2/qcow2_damage.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/refcounts.h"
#include "disk/qcow2/sync_file.h"

namespace crosvm {

/// One write of a commit.
struct MetadataWrite {
  uint64_t offset = 0;  ///< in the file
  std::vector<std::byte> bytes;
  ClusterUse use = ClusterUse::kHeader;  ///< what it must be that is written to
};

/// The metadata of one image in use. What is in memory is the truth. A commit brings the file up to
/// date in stages, each of which is on stable storage before the next begins, so that at any moment
/// the file is a valid image: refcounts go up first, then come the tables that refer to what is
/// counted, and what nothing refers to any more is free only after that.
class Qcow2Metadata {
 public:
  /// A cut through the metadata, on its way to the file.
  struct Commit {
    // Refcount blocks; refcount table; the header that has it; L2 tables; L1 table; header.
    static constexpr size_t kStages = 6;
    std::array<std::vector<MetadataWrite>, kStages> stages;
    std::vector<ClusterRun> freed;  ///< may be used again once it is stable

    bool has_writes() const;

   private:
    friend class Qcow2Metadata;
    struct Range {
      TableCache* cache;
      CachedTable* table;
      size_t from;
      size_t to;
    };
    std::vector<Range> tables_;
    Refcounts::TableChange refcount_table_;
    L2Map::L1Change l1_;
    bool header_ = false;
    Qcow2Header middle_;  // of the third stage
    Qcow2Header last_;
  };

  struct Limits {
    size_t l2_bytes = 16 << 20;
    size_t block_bytes = 8 << 20;
  };

  /// Reads the tables that stay in memory. Errors: those of reading; invalid_argument,
  /// not_supported or operation_not_permitted for an image that cannot be used so, with the fix.
  static Result<std::unique_ptr<Qcow2Metadata>> open(SyncFile& file, const std::string& object,
                                                     bool read_only, const Limits& limits);

  const Qcow2Header& header() const { return header_; }
  const Qcow2Layout& layout() const { return layout_; }
  MetadataMap& map() { return map_; }
  Refcounts& refcounts() { return refcounts_; }
  L2Map& l2() { return l2_; }
  Qcow2Damage& damage() { return damage_; }

  /// Clusters that nothing in memory refers to any more: free after the next commit.
  std::vector<ClusterRun>& freed() { return freed_; }
  /// The same for what `entry` of the L2 table has used.
  Qcow2Need drop(const Qcow2Entry& entry);
  /// So many bytes of the disk there are from the next commit on.
  void set_size(uint64_t bytes);

  bool needs_commit() const;
  /// So much is in memory only that a commit is due.
  bool is_heavy();
  /// Nothing more may be changed before a commit.
  bool is_full();

  /// kNothing: `commit` holds all that is newer than the file. Every write has been checked.
  Qcow2Need begin_commit(Commit& commit);
  /// From now on the header may be in the file that this stage writes.
  void stage_begins(const Commit& commit, size_t stage);
  /// All of it is stable, or, on failure, it is as if it had not begun.
  void end_commit(Commit& commit, bool is_stable);

  /// The table that a need of kBlock or kL2 is about has been read.
  void add_loaded(const Qcow2Need& need, std::span<const std::byte> bytes);
  /// The same without a copy.
  void add_loaded(const Qcow2Need& need, std::unique_ptr<std::byte[]> table);
  TableCache& cache_of(const Qcow2Need& need) {
    return need.kind == Qcow2Need::Kind::kBlock ? refcounts_.blocks() : l2_.tables();
  }
  /// One use of `cluster` less; kNothing when it is done. When it is free, it is known no more.
  Qcow2Need release(uint64_t cluster);

  /// Does all that is left to do, waiting for it: after it the file is up to date, without leaks.
  Result<void> commit_and_wait(SyncFile& file);
  /// The header that the file has, with the bit that says "damaged"; empty where the version has
  /// none. Not while a commit is on its way.
  std::vector<std::byte> damaged_header();

 private:
  Qcow2Metadata(const Qcow2Header& header, std::vector<std::byte> header_sector,
                const std::string& object, const Limits& limits);
  Result<void> read_tables(SyncFile& file, bool read_only);
  Result<void> read_snapshots(SyncFile& file);
  Result<void> claim_snapshot_tables(SyncFile& file, uint64_t l1_offset, uint64_t l1_entries);
  Result<void> prepare_writing(SyncFile& file);
  Result<std::vector<uint64_t>> read_entries(SyncFile& file, uint64_t offset, uint64_t count);
  Result<void> claim_entries(const std::vector<uint64_t>& entries, uint64_t mask, ClusterUse use,
                             uint64_t file_bytes);
  void cut_tables(TableCache& cache, ClusterUse use, Commit& commit,
                  std::vector<MetadataWrite>& writes);
  MetadataWrite cut_entries(uint64_t table_offset, const std::vector<uint64_t>& entries,
                            size_t from, size_t to, ClusterUse use) const;
  MetadataWrite cut_header(const Qcow2Header& header);
  void cut_headers(Commit& commit);
  bool may_write(const MetadataWrite& write);
  Result<void> satisfy(const Qcow2Need& need, SyncFile& file);
  Result<void> free_and_wait(const std::vector<ClusterRun>& runs, SyncFile& file);
  Result<void> write_and_wait(Commit& commit, SyncFile& file);

  Qcow2Header header_;           // as in memory
  Qcow2Header stable_;           // as in the file, after the last commit
  Qcow2Header written_;          // as in the file, whether or not that is stable
  bool header_is_open_ = false;  // after a commit that failed: either is in the file
  std::vector<std::byte> header_sector_;
  const Qcow2Layout layout_;
  Qcow2Damage damage_;
  MetadataMap map_;
  Refcounts refcounts_;
  L2Map l2_;
  std::vector<ClusterRun> freed_;
  uint64_t freed_clusters_ = 0;
};

}  // namespace crosvm
