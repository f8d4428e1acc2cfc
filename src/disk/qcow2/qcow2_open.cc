#include <algorithm>
#include <system_error>

#include "base/format.h"
#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_metadata.h"

namespace crosvm {

using Need = Qcow2Need;

namespace {

constexpr uint64_t kSnapshotEntry = 40;  // bytes, at least
constexpr uint64_t kMostSnapshotTableBytes = 64 << 20;
constexpr uint64_t kMostSnapshotL1Entries = 64 << 20;  // of all snapshots together
constexpr uint64_t kEntriesAtOnce = 64 << 10;

std::unexpected<Error> damaged(const std::string& object, const std::string& what) {
  return fail(Error::invalid(format_text(
      "{}: {}; the qcow2 image is damaged: repair it with qemu-img check -r all", object, what)));
}

}  // namespace

Result<std::unique_ptr<Qcow2Metadata>> Qcow2Metadata::open(SyncFile& file,
                                                           const std::string& object,
                                                           bool read_only, const Limits& limits) {
  std::vector<std::byte> start(std::min<uint64_t>(kQcow2MostHeaderBytes, file.size()));
  TRY(file.read_at(0, start));
  Qcow2Header header = TRY(parse_qcow2_header(start, file.size(), object));
  if (!read_only && header.is_corrupt()) {
    return fail(Error(std::errc::operation_not_permitted,
                      format_text("{}: the image is marked as corrupt and may only be read; repair "
                                  "it with qemu-img check -r all, or open it read-only",
                                  object)));
  }
  if (!read_only && header.is_dirty()) {
    TRY(with_context(rebuild_qcow2_refcounts(file, object), "repairing refcounts"));
    TRY(file.read_at(0, start));
    header = TRY(parse_qcow2_header(start, file.size(), object));
  }
  start.resize(kQcow2HeaderSector);
  std::unique_ptr<Qcow2Metadata> metadata(
      new Qcow2Metadata(header, std::move(start), object, limits));
  TRY(metadata->read_tables(file, read_only));
  return metadata;
}

Result<std::vector<uint64_t>> Qcow2Metadata::read_entries(SyncFile& file, uint64_t offset,
                                                          uint64_t count) {
  std::vector<std::byte> bytes(count * 8);
  TRY(file.read_at(offset, bytes));
  std::vector<uint64_t> entries(count);
  for (size_t i = 0; i < count; ++i) entries[i] = load_big_endian<uint64_t>(bytes, i * 8);
  return entries;
}

/// What lies outside the file or is not aligned is found when it is used.
Result<void> Qcow2Metadata::claim_entries(const std::vector<uint64_t>& entries, uint64_t mask,
                                          ClusterUse use, uint64_t file_bytes) {
  for (uint64_t entry : entries) {
    const uint64_t offset = entry & mask;
    if (offset == 0 || offset >= file_bytes || layout_.in_cluster(offset) != 0) continue;
    const uint64_t cluster = offset >> layout_.cluster_bits;
    const ClusterUse now = map_.use(cluster);
    const bool is_shared = now == ClusterUse::kSnapshotL2 &&
                           (use == ClusterUse::kL2 || use == ClusterUse::kSnapshotL2);
    if (is_shared) continue;
    TRY(map_.expect_room(now == ClusterUse::kData ? 1 : 0, damage_.object()));
    (void)map_.claim(cluster, 1, use);
  }
  return {};
}

Result<void> Qcow2Metadata::read_tables(SyncFile& file, bool read_only) {
  const std::string& object = damage_.object();
  if (layout_.clusters(file.size()) > MetadataMap::kMostClusters) {
    return fail(Error(std::errc::not_supported,
                      format_text("{}: a file of {} bytes is too large for clusters of {} bytes",
                                  object, file.size(), layout_.cluster_size())));
  }
  const uint32_t bits = layout_.cluster_bits;
  bool is_free = map_.claim(0, 1, ClusterUse::kHeader);
  is_free &= map_.claim(header_.l1_offset >> bits,
                        layout_.clusters(uint64_t{header_.l1_entries} * 8), ClusterUse::kL1);
  is_free &= map_.claim(header_.refcount_table_offset >> bits, header_.refcount_table_clusters,
                        ClusterUse::kRefcountTable);
  if (!is_free) return damaged(object, "its header, L1 table and refcount table overlap");
  if (header_.snapshots > 0) TRY(read_snapshots(file));
  auto blocks = TRY(read_entries(file, header_.refcount_table_offset,
                                 (uint64_t{header_.refcount_table_clusters} << bits) / 8));
  for (uint64_t& block : blocks) block &= ~uint64_t{511};
  TRY(claim_entries(blocks, ~uint64_t{0}, ClusterUse::kRefcountBlock, file.size()));
  refcounts_.set_table(header_.refcount_table_offset, std::move(blocks), file.size());
  auto l1 = TRY(read_entries(file, header_.l1_offset, header_.l1_entries));
  TRY(claim_entries(l1, kQcow2OffsetMask, ClusterUse::kL2, file.size()));
  l2_.set_l1(header_.l1_offset, std::move(l1));
  return read_only ? Result<void>() : prepare_writing(file);
}

Result<void> Qcow2Metadata::read_snapshots(SyncFile& file) {
  const std::string& object = damage_.object();
  uint64_t at = header_.snapshots_offset;
  uint64_t l1_total = 0;
  std::vector<std::pair<uint64_t, uint64_t>> l1_tables;
  for (uint32_t i = 0; i < header_.snapshots; ++i) {
    std::array<std::byte, kSnapshotEntry> entry;
    if (at > file.size() - kSnapshotEntry) return damaged(object, "its snapshot table is cut off");
    TRY(file.read_at(at, entry));
    const auto l1_offset = load_big_endian<uint64_t>(entry, 0);
    const auto l1_entries = load_big_endian<uint32_t>(entry, 8);
    const uint64_t variable = uint64_t{load_big_endian<uint16_t>(entry, 12)} +
                              load_big_endian<uint16_t>(entry, 14) +
                              load_big_endian<uint32_t>(entry, 36);
    l1_total += l1_entries;
    if (layout_.in_cluster(l1_offset) != 0 || l1_offset > file.size() ||
        uint64_t{l1_entries} * 8 > file.size() - l1_offset || l1_total > kMostSnapshotL1Entries) {
      return damaged(object, format_text("the L1 table of snapshot {} lies outside the file", i));
    }
    l1_tables.emplace_back(l1_offset, l1_entries);
    at += (kSnapshotEntry + variable + 7) & ~uint64_t{7};
    if (at - header_.snapshots_offset > kMostSnapshotTableBytes) {
      return damaged(object, "its snapshot table is too large");
    }
  }
  const uint64_t first = header_.snapshots_offset >> layout_.cluster_bits;
  bool is_free = map_.claim(first, layout_.clusters(at) - first, ClusterUse::kSnapshotTable);
  for (auto [offset, entries] : l1_tables) {
    TRY(map_.expect_room(layout_.clusters(entries * 8), object));
    is_free &= map_.claim(offset >> layout_.cluster_bits, layout_.clusters(entries * 8),
                          ClusterUse::kSnapshotL1);
  }
  if (!is_free) return damaged(object, "its snapshot tables overlap other metadata");
  for (auto [offset, entries] : l1_tables) TRY(claim_snapshot_tables(file, offset, entries));
  return {};
}

Result<void> Qcow2Metadata::claim_snapshot_tables(SyncFile& file, uint64_t l1_offset,
                                                  uint64_t l1_entries) {
  for (uint64_t done = 0; done < l1_entries; done += kEntriesAtOnce) {
    const uint64_t count = std::min(kEntriesAtOnce, l1_entries - done);
    TRY(claim_entries(TRY(read_entries(file, l1_offset + done * 8, count)), kQcow2OffsetMask,
                      ClusterUse::kSnapshotL2, file.size()));
  }
  return {};
}

/// Features that we do not keep up are declared out of date.
Result<void> Qcow2Metadata::prepare_writing(SyncFile& file) {
  const uint64_t kept = header_.autoclear & kQcow2AutoclearRawData;
  if (header_.autoclear == kept) return {};
  header_.autoclear = stable_.autoclear = written_.autoclear = kept;
  TRY(file.write_at(0, cut_header(header_).bytes));
  return file.flush();
}

// ---- the end

Result<void> Qcow2Metadata::satisfy(const Need& need, SyncFile& file) {
  switch (need.kind) {
    case Need::Kind::kNothing:
      return {};
    case Need::Kind::kFileSize:
      TRY(file.resize(need.value));
      refcounts_.set_file_bytes(file.size());
      return {};
    case Need::Kind::kFailed:
      return fail(Error::from_errno("changing metadata", damage_.object(), need.error));
    default: {
      std::vector<std::byte> bytes(layout_.cluster_size());
      TRY(file.read_at(need.value, bytes));
      add_loaded(need, bytes);
      return {};
    }
  }
}

Result<void> Qcow2Metadata::free_and_wait(const std::vector<ClusterRun>& runs, SyncFile& file) {
  for (const ClusterRun& run : runs) {
    for (uint64_t cluster = run.first; cluster < run.first + run.count;) {
      uint64_t refcount = 0;
      Need need = refcounts_.get(cluster, refcount);
      if (need.is_nothing() && refcount == 1) {
        file.punch(cluster << layout_.cluster_bits, layout_.cluster_size());
      }
      if (need.is_nothing()) need = release(cluster);
      if (need.is_nothing()) {
        ++cluster;
      } else {
        TRY(satisfy(need, file));
      }
    }
  }
  return {};
}

Result<void> Qcow2Metadata::write_and_wait(Commit& commit, SyncFile& file) {
  TRY(file.flush());
  for (size_t stage = 0; stage < Commit::kStages; ++stage) {
    const auto& writes = commit.stages[stage];
    stage_begins(commit, stage);
    for (const MetadataWrite& write : writes) TRY(file.write_at(write.offset, write.bytes));
    if (!writes.empty()) TRY(file.flush());
  }
  return {};
}

Result<void> Qcow2Metadata::commit_and_wait(SyncFile& file) {
  while (needs_commit()) {
    Commit commit;
    while (true) {
      const Need need = begin_commit(commit);
      if (need.is_nothing()) break;
      TRY(satisfy(need, file));
    }
    Result<void> written = write_and_wait(commit, file);
    std::vector<ClusterRun> freed = commit.freed;
    end_commit(commit, written.has_value());
    TRY(std::move(written));
    TRY(free_and_wait(freed, file));
  }
  return {};
}

}  // namespace crosvm
