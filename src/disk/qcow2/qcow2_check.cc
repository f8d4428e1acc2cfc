#include "disk/qcow2/qcow2_check.h"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "base/format.h"
#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/cluster_counts.h"
#include "disk/qcow2/metadata_map.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/refcounts.h"

namespace crosvm {
namespace {

constexpr size_t kMostMessages = 100;
constexpr uint64_t kSnapshotEntry = 40;
constexpr uint64_t kMostSnapshotL1Entries = 64 << 20;  // together

/// Walks an image once. A table is read in whole; nothing else of the image stays in memory but
/// the counts.
class Checker {
 public:
  Checker(SyncFile& file, const std::string& object) : file_(file), object_(object) {}

  Result<void> walk();
  /// Compares the counts with those in the image, and the flags in the active tables.
  Result<void> compare(bool fix_flags);
  /// Writes the counts into the image, in a place of their own, and gives back what is not used.
  Result<void> rebuild();
  Qcow2Report& report() { return report_; }
  const Qcow2Header& header() const { return header_; }

 private:
  struct Table {
    uint64_t offset;
    uint64_t entries;
    bool is_active;
  };
  template <class... Args>
  void error(fmt::format_string<Args...> text, Args&&... args) {
    ++report_.errors;
    tell(format_text(text, std::forward<Args>(args)...));
  }
  void tell(std::string message) {
    if (report_.messages.size() < kMostMessages) report_.messages.push_back(std::move(message));
  }
  Result<void> read_header();
  Result<std::vector<uint64_t>> read_entries(uint64_t offset, uint64_t count);
  bool claim(std::string_view what, uint64_t offset, uint64_t bytes, ClusterUse use);
  Result<void> find_snapshots();
  Result<void> claim_blocks();
  Result<void> claim_l2_tables(const Table& l1);
  Result<void> walk_l1(const Table& l1);
  Result<void> walk_l2(uint64_t offset, uint64_t guest, bool is_active);
  void count_entry(const Qcow2Entry& entry, uint64_t guest);
  void count_compressed(const Qcow2Entry& entry, uint64_t guest);
  Qcow2Entry entry_of(std::span<const std::byte> table, uint64_t index) const;
  Result<void> compare_refcounts();
  void compare_block(std::span<const std::byte> block, uint64_t first);
  Result<void> compare_flags(bool fix);
  Result<void> compare_l2_flags(uint64_t offset, bool fix);
  Result<void> write_counts(uint64_t first, uint64_t table_clusters,
                            const std::vector<uint64_t>& blocks);
  void punch_unused();

  SyncFile& file_;
  const std::string& object_;
  Qcow2Header header_;
  Qcow2Layout layout_;
  uint64_t file_clusters_ = 0;
  MetadataMap map_;
  ClusterCounts counts_;
  std::vector<uint64_t> blocks_;
  std::vector<Table> l1_tables_;
  Qcow2Report report_;
};

Result<void> Checker::read_header() {
  std::vector<std::byte> start(std::min<uint64_t>(kQcow2MostHeaderBytes, file_.size()));
  TRY(file_.read_at(0, start));
  header_ = TRY(parse_qcow2_header(start, file_.size(), object_));
  layout_ = header_.layout();
  file_clusters_ = layout_.clusters(file_.size());
  if (file_clusters_ > ClusterCounts::kMostClusters) {
    return fail(Error(std::errc::not_supported,
                      format_text("{}: a file of {} clusters is too large to be checked", object_,
                                  file_clusters_)));
  }
  return {};
}

Result<std::vector<uint64_t>> Checker::read_entries(uint64_t offset, uint64_t count) {
  std::vector<std::byte> bytes(count * 8);
  TRY(file_.read_at(offset, bytes));
  std::vector<uint64_t> entries(count);
  for (size_t i = 0; i < count; ++i) entries[i] = load_big_endian<uint64_t>(bytes, i * 8);
  return entries;
}

/// Counts the clusters of a table. False when they cannot be its.
bool Checker::claim(std::string_view what, uint64_t offset, uint64_t bytes, ClusterUse use) {
  const uint64_t first = offset >> layout_.cluster_bits;
  const uint64_t count = layout_.clusters(bytes);
  if (layout_.in_cluster(offset) != 0 || first > file_clusters_ || count > file_clusters_ - first) {
    error("{} at {:#x} is not aligned or outside the file", what, offset);
    return false;
  }
  for (uint64_t i = first; i < first + count; ++i) counts_.add(i);
  if (map_.claim(first, count, use)) return true;
  error("{} at {:#x} overlaps other metadata", what, offset);
  return false;
}

Result<void> Checker::find_snapshots() {
  uint64_t at = header_.snapshots_offset;
  uint64_t total = 0;
  for (uint32_t i = 0; i < header_.snapshots; ++i) {
    std::array<std::byte, kSnapshotEntry> entry;
    TRY(file_.read_at(at, entry));
    const Table l1{.offset = load_big_endian<uint64_t>(entry, 0),
                   .entries = load_big_endian<uint32_t>(entry, 8),
                   .is_active = false};
    at += (kSnapshotEntry + load_big_endian<uint16_t>(entry, 12) +
           load_big_endian<uint16_t>(entry, 14) + load_big_endian<uint32_t>(entry, 36) + 7) &
          ~uint64_t{7};
    total += l1.entries;
    if (at > file_.size() + 8 || total > kMostSnapshotL1Entries) {
      error("the snapshot table is damaged at entry {}", i);
      break;
    }
    if (claim("a snapshot's L1 table", l1.offset, l1.entries * 8, ClusterUse::kSnapshotL1)) {
      l1_tables_.push_back(l1);
    }
  }
  if (header_.snapshots > 0) {
    (void)claim("the snapshot table", header_.snapshots_offset, at - header_.snapshots_offset,
                ClusterUse::kSnapshotTable);
  }
  return {};
}

Result<void> Checker::claim_blocks() {
  blocks_ =
      TRY(read_entries(header_.refcount_table_offset,
                       (uint64_t{header_.refcount_table_clusters} << layout_.cluster_bits) / 8));
  for (uint64_t& block : blocks_) {
    block &= ~uint64_t{511};
    if (block == 0) continue;
    if (!claim("a refcount block", block, layout_.cluster_size(), ClusterUse::kRefcountBlock)) {
      block = 0;
    }
  }
  return {};
}

/// Before what they map, so that data which overlaps them is found. Snapshots share tables.
Result<void> Checker::claim_l2_tables(const Table& l1) {
  for (uint64_t entry : TRY(read_entries(l1.offset, l1.entries))) {
    const uint64_t offset = entry & kQcow2OffsetMask;
    if (offset == 0) continue;
    const uint64_t cluster = offset >> layout_.cluster_bits;
    if (layout_.in_cluster(offset) == 0 && map_.use(cluster) == ClusterUse::kL2) {
      counts_.add(cluster);
    } else {
      (void)claim("an L2 table", offset, layout_.cluster_size(), ClusterUse::kL2);
    }
  }
  return {};
}

Qcow2Entry Checker::entry_of(std::span<const std::byte> table, uint64_t index) const {
  const size_t at = index * layout_.entry_size();
  Qcow2Entry entry{.word = load_big_endian<uint64_t>(table, at)};
  if (layout_.extended_l2) entry.bitmap = load_big_endian<uint64_t>(table, at + 8);
  return entry;
}

void Checker::count_compressed(const Qcow2Entry& entry, uint64_t guest) {
  const Qcow2CompressedPlace place = layout_.compressed_place(entry);
  const uint64_t first = place.offset >> layout_.cluster_bits;
  const uint64_t end = layout_.clusters(place.offset + place.length);
  if (first >= file_clusters_ || end > file_clusters_ + 1) {
    return error("the compressed cluster for {:#x} lies outside the file", guest);
  }
  if (entry.is_copied()) error("the compressed cluster for {:#x} has the copied flag", guest);
  ++report_.compressed_clusters;
  for (uint64_t i = first; i < std::min(end, file_clusters_); ++i) {
    if (map_.use(i) != ClusterUse::kData) {
      error("the compressed cluster for {:#x} overlaps metadata", guest);
    }
    counts_.add(i);
  }
}

void Checker::count_entry(const Qcow2Entry& entry, uint64_t guest) {
  if (entry == Qcow2Entry{}) return;
  for (uint32_t unit = 0; unit < (layout_.extended_l2 ? kQcow2Subclusters : 1); ++unit) {
    if (layout_.kind(entry, guest, unit) == Qcow2UnitKind::kBroken) {
      return error("the L2 entry {:#x} for {:#x} is broken", entry.word, guest);
    }
  }
  if (entry.is_compressed()) return count_compressed(entry, guest);
  if (entry.host() == 0 || layout_.external_data) return;
  const uint64_t cluster = entry.host() >> layout_.cluster_bits;
  if (cluster >= file_clusters_) {
    return error("the cluster for {:#x} lies outside the file, at {:#x}", guest, entry.host());
  }
  if (map_.use(cluster) != ClusterUse::kData) {
    error("the cluster for {:#x} overlaps metadata at {:#x}", guest, entry.host());
  }
  ++report_.data_clusters;
  counts_.add(cluster);
}

Result<void> Checker::walk_l2(uint64_t offset, uint64_t guest, bool is_active) {
  std::vector<std::byte> table(layout_.cluster_size());
  TRY(file_.read_at(offset, table));
  const uint64_t data = report_.data_clusters;
  const uint64_t compressed = report_.compressed_clusters;
  for (uint64_t i = 0; i < layout_.l2_entries(); ++i) {
    count_entry(entry_of(table, i), guest + (i << layout_.cluster_bits));
  }
  if (is_active) return {};
  report_.data_clusters = data;  // of the disk as it is now
  report_.compressed_clusters = compressed;
  return {};
}

Result<void> Checker::walk_l1(const Table& l1) {
  const auto entries = TRY(read_entries(l1.offset, l1.entries));
  for (size_t i = 0; i < entries.size(); ++i) {
    const uint64_t offset = entries[i] & kQcow2OffsetMask;
    if (offset == 0 || layout_.in_cluster(offset) != 0) continue;
    if (map_.use(offset >> layout_.cluster_bits) != ClusterUse::kL2) continue;
    TRY(walk_l2(offset, i * layout_.l2_coverage(), l1.is_active));
  }
  return {};
}

Result<void> Checker::walk() {
  TRY(read_header());
  (void)claim("the header", 0, layout_.cluster_size(), ClusterUse::kHeader);
  const Table active{.offset = header_.l1_offset, .entries = header_.l1_entries, .is_active = true};
  if (claim("the L1 table", active.offset, active.entries * 8, ClusterUse::kL1)) {
    l1_tables_.push_back(active);
  }
  (void)claim("the refcount table", header_.refcount_table_offset,
              uint64_t{header_.refcount_table_clusters} << layout_.cluster_bits,
              ClusterUse::kRefcountTable);
  TRY(find_snapshots());
  TRY(claim_blocks());
  for (const Table& l1 : l1_tables_) TRY(claim_l2_tables(l1));
  for (const Table& l1 : l1_tables_) TRY(walk_l1(l1));
  return {};
}

/// To the end of the last block that counts clusters of the file.
Result<void> Checker::compare_refcounts() {
  const uint64_t per_block = layout_.refcounts_per_block();
  const uint64_t end = std::max(file_clusters_, counts_.end());
  std::vector<std::byte> block(layout_.cluster_size());
  for (uint64_t index = 0; index * per_block < end; ++index) {
    if (index < blocks_.size() && blocks_[index] != 0) {
      TRY(file_.read_at(blocks_[index], block));
    } else {
      std::ranges::fill(block, std::byte{0});
    }
    compare_block(block, index * per_block);
  }
  return {};
}

void Checker::compare_block(std::span<const std::byte> block, uint64_t first) {
  const uint64_t per_block = layout_.refcounts_per_block();
  const uint64_t per_word = 64 >> layout_.refcount_order;
  for (uint64_t at = 0; at < per_block;) {
    const uint64_t cluster = first + at;
    // Most of many a block counts nothing.
    const bool is_word = at % per_word == 0 && cluster >= counts_.end();
    if (is_word && load_big_endian<uint64_t>(block, at / per_word * 8) == 0) {
      at += per_word;
      continue;
    }
    const uint64_t is = load_refcount(block, at++, layout_.refcount_order);
    const uint64_t should = counts_.get(cluster);
    if (is > should) {
      ++report_.leaks;
      tell(format_text("the cluster at {:#x} has the refcount {}, with {} uses",
                       cluster << layout_.cluster_bits, is, should));
    } else if (is < should) {
      error("the cluster at {:#x} has the refcount {}, with {} uses",
            cluster << layout_.cluster_bits, is, should);
    }
  }
}

Result<void> Checker::compare_l2_flags(uint64_t offset, bool fix) {
  std::vector<std::byte> table(layout_.cluster_size());
  TRY(file_.read_at(offset, table));
  bool changed = false;
  for (uint64_t i = 0; i < layout_.l2_entries(); ++i) {
    const Qcow2Entry entry = entry_of(table, i);
    const uint64_t cluster = entry.host() >> layout_.cluster_bits;
    if (entry.is_compressed() || entry.host() == 0 || cluster >= file_clusters_) continue;
    if (entry.is_copied() == (counts_.get(cluster) == 1)) continue;
    error("the copied flag of the cluster at {:#x} is wrong", entry.host());
    store_big_endian(table, i * layout_.entry_size(), entry.word ^ kQcow2Copied);
    changed = true;
  }
  if (changed && fix) TRY(file_.write_at(offset, table));
  return {};
}

Result<void> Checker::compare_flags(bool fix) {
  if (layout_.external_data) return {};
  auto entries = TRY(read_entries(header_.l1_offset, header_.l1_entries));
  for (size_t i = 0; i < entries.size(); ++i) {
    const uint64_t offset = entries[i] & kQcow2OffsetMask;
    const uint64_t cluster = offset >> layout_.cluster_bits;
    if (offset == 0 || map_.use(cluster) != ClusterUse::kL2) continue;
    const bool is_own = counts_.get(cluster) == 1;
    if (((entries[i] & kQcow2Copied) != 0) != is_own) {
      error("the copied flag of the L2 table at {:#x} is wrong", offset);
      std::array<std::byte, 8> bytes;
      store_big_endian(bytes, 0, entries[i] ^ kQcow2Copied);
      if (fix) TRY(file_.write_at(header_.l1_offset + i * 8, bytes));
    }
    // What a shared table says of itself is not looked at before it has been copied.
    if (is_own) TRY(compare_l2_flags(offset, fix));
  }
  return {};
}

Result<void> Checker::compare(bool fix_flags) {
  TRY(compare_refcounts());
  return compare_flags(fix_flags);
}

/// The table first, then the blocks, all behind everything else; the header is changed last.
Result<void> Checker::rebuild() {
  const uint64_t old_first = header_.refcount_table_offset >> layout_.cluster_bits;
  for (uint64_t i = 0; i < header_.refcount_table_clusters; ++i) counts_.remove(old_first + i);
  for (uint64_t block : blocks_) {
    if (block != 0) counts_.remove(block >> layout_.cluster_bits);
  }
  const uint64_t per_block = layout_.refcounts_per_block();
  const uint64_t first = file_clusters_;
  std::vector<uint64_t> used;  // indexes of blocks that are needed
  for (uint64_t index = 0; index * per_block < counts_.end(); ++index) {
    if (counts_.any(index * per_block, per_block)) used.push_back(index);
  }
  std::vector<uint64_t> all = used;
  uint64_t table_clusters = 1;
  while (true) {
    const uint64_t end = first + table_clusters + all.size();
    std::vector<uint64_t> more = used;
    for (uint64_t index = first / per_block; index * per_block < end; ++index) {
      if (more.empty() || more.back() < index) more.push_back(index);
    }
    const uint64_t wanted = layout_.clusters((more.back() + 1) * 8);
    if (wanted == table_clusters && more.size() == all.size()) break;
    table_clusters = std::max(wanted, table_clusters);
    all = std::move(more);
  }
  if ((table_clusters << layout_.cluster_bits) > kQcow2MostRefcountTableBytes) {
    return fail(Error(std::errc::file_too_large,
                      format_text("{}: there is no room for its refcounts", object_)));
  }
  for (uint64_t i = 0; i < table_clusters + all.size(); ++i) counts_.add(first + i);
  TRY(write_counts(first, table_clusters, all));
  punch_unused();
  return {};
}

Result<void> Checker::write_counts(uint64_t first, uint64_t table_clusters,
                                   const std::vector<uint64_t>& blocks) {
  const uint64_t per_block = layout_.refcounts_per_block();
  std::vector<std::byte> table(table_clusters << layout_.cluster_bits);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const uint64_t offset = (first + table_clusters + i) << layout_.cluster_bits;
    store_big_endian(table, blocks[i] * 8, offset);
    std::vector<std::byte> block(layout_.cluster_size());
    for (uint64_t j = 0; j < per_block; ++j) {
      const uint64_t count = counts_.get(blocks[i] * per_block + j);
      if (count > layout_.most_refcount()) {
        return fail(
            Error::invalid(format_text("{}: a cluster has {} uses, more than its refcount "
                                       "can hold; the qcow2 image is damaged",
                                       object_, count)));
      }
      store_refcount(block, j, layout_.refcount_order, count);
    }
    TRY(file_.write_at(offset, block));
  }
  TRY(file_.write_at(first << layout_.cluster_bits, table));
  TRY(file_.flush());
  header_.refcount_table_offset = first << layout_.cluster_bits;
  header_.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
  header_.incompatible &= ~kQcow2IncompatibleDirty;
  std::vector<std::byte> start(kQcow2HeaderSector);
  TRY(file_.read_at(0, start));
  patch_qcow2_header(header_, start);
  TRY(file_.write_at(0, start));
  return file_.flush();
}

void Checker::punch_unused() {
  for (uint64_t cluster = 0; cluster < file_clusters_;) {
    uint64_t end = cluster;
    while (end < file_clusters_ && counts_.get(end) == 0) ++end;
    if (end > cluster) {
      file_.punch(cluster << layout_.cluster_bits, (end - cluster) << layout_.cluster_bits);
    }
    cluster = end + 1;
  }
}

}  // namespace

Result<Qcow2Report> check_qcow2(SyncFile& file, const std::string& object, Qcow2Repair repair) {
  Checker checker(file, object);
  TRY(checker.walk());
  const bool tables_are_right = checker.report().errors == 0;
  TRY(checker.compare(false));
  // The clusters of bitmaps are not counted here.
  const bool may_repair =
      tables_are_right && checker.report().errors == 0 && !checker.header().has_bitmaps;
  if (repair == Qcow2Repair::kLeaks && may_repair && checker.report().leaks > 0) {
    TRY(checker.rebuild());
  }
  return std::move(checker.report());
}

Result<void> rebuild_qcow2_refcounts(SyncFile& file, const std::string& object) {
  Checker checker(file, object);
  TRY(checker.walk());
  if (checker.report().errors > 0) {
    return fail(Error::invalid(
        format_text("{}: {}; the qcow2 image is damaged: repair it with qemu-img check -r all",
                    object, checker.report().messages.front())));
  }
  TRY(checker.compare(true));
  return checker.rebuild();
}

}  // namespace crosvm
