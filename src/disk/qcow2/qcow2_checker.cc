#include "disk/qcow2/qcow2_checker.h"

#include <algorithm>
#include <array>

#include "disk/qcow2/big_endian.h"

namespace crosvm {
namespace {

constexpr uint64_t kSnapshotEntry = 40;
constexpr uint64_t kMostSnapshotL1Entries = 64 << 20;  // together
constexpr uint64_t kMostBitmapEntries = 64 << 20;      // together

}  // namespace

Result<void> Qcow2Checker::read_header() {
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

Result<std::vector<uint64_t>> Qcow2Checker::read_entries(uint64_t offset, uint64_t count) {
  std::vector<std::byte> bytes(count * 8);
  TRY(file_.read_at(offset, bytes));
  std::vector<uint64_t> entries(count);
  for (size_t i = 0; i < count; ++i) entries[i] = load_big_endian<uint64_t>(bytes, i * 8);
  return entries;
}

Result<void> Qcow2Checker::expect_room() const {
  if (is_map_full_) return fail(MetadataMap::no_room(object_));
  if (!counts_.is_full()) return {};
  return fail(Error(
      std::errc::not_supported,
      format_text("{}: its clusters lie so far apart that it takes too much memory to count their "
                  "uses; copy it (crosvm disk convert)",
                  object_)));
}

/// Counts the clusters of a table. False when they cannot be its.
bool Qcow2Checker::claim(std::string_view what, uint64_t offset, uint64_t bytes, ClusterUse use) {
  const uint64_t first = offset >> layout_.cluster_bits;
  const uint64_t count = layout_.clusters(bytes);
  if (layout_.in_cluster(offset) != 0 || first > file_clusters_ || count > file_clusters_ - first) {
    error("{} at {:#x} is not aligned or outside the file", what, offset);
    return false;
  }
  is_map_full_ = is_map_full_ || !map_.has_room(count);
  if (is_map_full_) return false;
  for (uint64_t i = first; i < first + count; ++i) counts_.add(i);
  if (map_.claim(first, count, use)) return true;
  error("{} at {:#x} overlaps other metadata", what, offset);
  return false;
}

Result<void> Qcow2Checker::find_snapshots() {
  uint64_t at = header_.snapshots_offset;
  if (layout_.in_cluster(at) != 0) error("the snapshot table at {:#x} is not aligned", at);
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

void Qcow2Checker::find_bitmaps() {
  auto bitmaps = read_qcow2_bitmaps(file_, header_, object_);
  if (!bitmaps) return error("{}", bitmaps.error().what());
  if (bitmaps->empty()) return;
  (void)claim("the directory of dirty bitmaps", header_.bitmaps->offset, header_.bitmaps->bytes,
              ClusterUse::kBitmap);
  uint64_t total = 0;
  for (Qcow2Bitmap& bitmap : *bitmaps) {
    total += bitmap.table_entries;
    if (total > kMostBitmapEntries) {
      return error("the dirty bitmap '{}' is larger than any can be", bitmap.name);
    }
    if (claim("the table of a dirty bitmap", bitmap.table_offset, bitmap.table_entries * 8,
              ClusterUse::kBitmap)) {
      bitmaps_.push_back(std::move(bitmap));
    }
  }
}

Result<void> Qcow2Checker::claim_bitmap(const Qcow2Bitmap& bitmap) {
  return for_entries(bitmap.table_offset, bitmap.table_entries,
                     [this](uint64_t, uint64_t entry) -> Result<void> {
                       const uint64_t offset = entry & kQcow2BitmapOffsetMask;
                       if (offset == 0) return {};
                       (void)claim("a cluster of a dirty bitmap", offset, layout_.cluster_size(),
                                   ClusterUse::kBitmap);
                       return expect_room();
                     });
}

Result<void> Qcow2Checker::claim_blocks() {
  blocks_ =
      TRY(read_entries(header_.refcount_table_offset,
                       (uint64_t{header_.refcount_table_clusters} << layout_.cluster_bits) / 8));
  for (uint64_t& block : blocks_) {
    if ((block & kQcow2RefcountTableReserved) != 0) {
      error("the entry {} of the refcount table, {:#x}, has reserved bits set",
            &block - blocks_.data(), block);
    }
    block &= ~kQcow2RefcountTableReserved;
    if (block == 0) continue;
    if (!claim("a refcount block", block, layout_.cluster_size(), ClusterUse::kRefcountBlock)) {
      block = 0;
    }
  }
  return {};
}

/// An entry that names no table is 0: else a table, with all that it maps, may have been lost.
void Qcow2Checker::check_l1_entry(uint64_t entry, uint64_t place) {
  if ((entry & kQcow2L1Reserved) != 0) {
    error("the L1 entry {:#x} at {:#x} has reserved bits set", entry, place);
  }
  if ((entry & kQcow2Copied) != 0 && (entry & kQcow2OffsetMask) == 0) {
    error("the L1 entry {:#x} at {:#x} has the copied flag of an L2 table, but no table", entry,
          place);
  }
}

/// Before what they map, so that data which overlaps them is found. Snapshots share tables.
Result<void> Qcow2Checker::claim_l2_tables(const Table& l1) {
  return for_entries(l1.offset, l1.entries, [&](uint64_t i, uint64_t entry) -> Result<void> {
    check_l1_entry(entry, l1.offset + i * 8);
    const uint64_t offset = entry & kQcow2OffsetMask;
    if (offset == 0) return {};
    const uint64_t cluster = offset >> layout_.cluster_bits;
    if (layout_.in_cluster(offset) == 0 && map_.use(cluster) == ClusterUse::kL2) {
      counts_.add(cluster);
    } else {
      (void)claim("an L2 table", offset, layout_.cluster_size(), ClusterUse::kL2);
    }
    return expect_room();
  });
}

Qcow2Entry Qcow2Checker::entry_of(std::span<const std::byte> table, uint64_t index) const {
  const size_t at = index * layout_.entry_size();
  Qcow2Entry entry{.word = load_big_endian<uint64_t>(table, at)};
  if (layout_.extended_l2) entry.bitmap = load_big_endian<uint64_t>(table, at + 8);
  return entry;
}

void Qcow2Checker::count_compressed(const Qcow2Entry& entry, uint64_t guest) {
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
    counts_.add(i, times_);
  }
}

void Qcow2Checker::count_entry(const Qcow2Entry& entry, uint64_t guest) {
  if (entry == Qcow2Entry{}) return;
  if (const uint64_t bits = layout_.reserved_bits(entry); bits != 0) {
    error("the L2 entry {:#x} for {:#x} has reserved bits set: {:#x}", entry.word, guest, bits);
  }
  for (uint32_t unit = 0; unit < (layout_.extended_l2 ? kQcow2Subclusters : 1); ++unit) {
    if (layout_.kind(entry, guest, unit) == Qcow2UnitKind::kBroken) {
      return error("the L2 entry {:#x} for {:#x} is broken", entry.word, guest);
    }
  }
  if (entry.is_compressed()) return count_compressed(entry, guest);
  if (layout_.external_data) return;
  if (entry.host() == 0) {
    // Only one that reads as zeroes is left here.
    if (entry.is_copied()) error("the L2 entry {:#x} for {:#x} is broken", entry.word, guest);
    return;
  }
  const uint64_t cluster = entry.host() >> layout_.cluster_bits;
  if (cluster >= file_clusters_) {
    return error("the cluster for {:#x} lies outside the file, at {:#x}", guest, entry.host());
  }
  if (map_.use(cluster) != ClusterUse::kData) {
    error("the cluster for {:#x} overlaps metadata at {:#x}", guest, entry.host());
  }
  ++report_.data_clusters;
  counts_.add(cluster, times_);
}

Result<void> Qcow2Checker::walk_l2(uint64_t offset, uint64_t guest, bool is_active) {
  const uint64_t data = report_.data_clusters;
  const uint64_t compressed = report_.compressed_clusters;
  TRY(for_l2_parts(offset, [&](std::span<std::byte> part, uint64_t first) -> Result<void> {
    for (uint64_t i = 0; i < part.size() / layout_.entry_size(); ++i) {
      count_entry(entry_of(part, i), guest + ((first + i) << layout_.cluster_bits));
    }
    return {};
  }));
  TRY(expect_room());
  if (is_active) return {};
  report_.data_clusters = data;  // of the disk as it is now
  report_.compressed_clusters = compressed;
  return {};
}

/// A table is walked once, however many entries name it: the same cluster of a small image can be
/// named millions of times.
Result<void> Qcow2Checker::walk_l1(const Table& l1) {
  return for_entries(l1.offset, l1.entries, [&](uint64_t i, uint64_t entry) -> Result<void> {
    const uint64_t offset = entry & kQcow2OffsetMask;
    const uint64_t cluster = offset >> layout_.cluster_bits;
    if (layout_.in_cluster(offset) != 0 || map_.use(cluster) != ClusterUse::kL2) return {};
    map_.set(cluster, ClusterUse::kWalkedL2);
    times_ = counts_.get(cluster);
    // There it says for each cluster of the disk where it lies, which is one place of the disk.
    if (layout_.external_data && times_ > 1) {
      error("the L2 table at {:#x} is named {} times, and its clusters are in a data file", offset,
            times_);
    }
    return walk_l2(offset, i * layout_.l2_coverage(), l1.is_active);
  });
}

Result<void> Qcow2Checker::walk() {
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
  find_bitmaps();
  TRY(claim_blocks());
  TRY(expect_room());
  for (const Table& l1 : l1_tables_) TRY(claim_l2_tables(l1));
  for (const Qcow2Bitmap& bitmap : bitmaps_) TRY(claim_bitmap(bitmap));
  for (const Table& l1 : l1_tables_) TRY(walk_l1(l1));
  return {};
}

}  // namespace crosvm
