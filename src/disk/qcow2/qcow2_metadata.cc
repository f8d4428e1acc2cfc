#include "disk/qcow2/qcow2_metadata.h"

#include <algorithm>
#include <system_error>

#include "base/format.h"
#include "disk/qcow2/big_endian.h"

namespace crosvm {

using Need = Qcow2Need;

namespace {

constexpr uint64_t kHeavyFreed = 1024;  // runs of clusters that wait for a commit
constexpr uint64_t kWriteUnit = 4096;   // what storage likes to be written in

}  // namespace

Qcow2Metadata::Qcow2Metadata(const Qcow2Header& header, std::vector<std::byte> header_sector,
                             const std::string& object, const Limits& limits)
    : header_(header),
      stable_(header),
      written_(header),
      header_sector_(std::move(header_sector)),
      layout_(header.layout()),
      damage_(object),
      refcounts_(layout_, map_, damage_, limits.block_bytes),
      l2_(layout_, map_, refcounts_, damage_, limits.l2_bytes) {}

// ---- changes

Need Qcow2Metadata::drop(const Qcow2Entry& entry) {
  ClusterRun run;
  if (entry.is_compressed()) {
    const Qcow2CompressedPlace place = layout_.compressed_place(entry);
    run.first = place.offset >> layout_.cluster_bits;
    run.count = layout_.clusters(place.offset + place.length) - run.first;
  } else {
    if (entry.host() == 0 || layout_.external_data) return {};
    run = {.first = entry.host() >> layout_.cluster_bits, .count = 1};
  }
  if (!map_.is_all(run.first, run.count, ClusterUse::kData)) {
    return Need::failed(damage_.report(
        format_text("an L2 entry refers to metadata at {:#x}", run.first << layout_.cluster_bits)));
  }
  if (!freed_.empty() && !entry.is_compressed() &&
      freed_.back().first + freed_.back().count == run.first) {
    ++freed_.back().count;
  } else {
    freed_.push_back(run);
  }
  return {};
}

void Qcow2Metadata::set_size(uint64_t bytes) { header_.size = bytes; }

bool Qcow2Metadata::needs_commit() const {
  return refcounts_.change().any() || l2_.change().any() || header_.size != stable_.size ||
         header_is_open_ || !freed_.empty() ||
         const_cast<Refcounts&>(refcounts_).blocks().is_dirty() ||
         const_cast<L2Map&>(l2_).tables().is_dirty();
}

bool Qcow2Metadata::is_heavy() {
  return refcounts_.blocks().is_heavy() || l2_.tables().is_heavy() || freed_.size() > kHeavyFreed;
}

bool Qcow2Metadata::is_full() {
  return refcounts_.blocks().is_full() || l2_.tables().is_full() ||
         freed_.size() > 64 * kHeavyFreed;
}

Need Qcow2Metadata::release(uint64_t cluster) {
  const bool is_l2 = map_.use(cluster) == ClusterUse::kL2;
  if (Need need = refcounts_.decrease(cluster); !need.is_nothing()) return need;
  if (is_l2 && map_.use(cluster) == ClusterUse::kData) {
    l2_.tables().forget(cluster << layout_.cluster_bits);
  }
  return {};
}

void Qcow2Metadata::add_loaded(const Need& need, std::span<const std::byte> bytes) {
  auto table = std::make_unique_for_overwrite<std::byte[]>(bytes.size());
  std::ranges::copy(bytes, table.get());
  add_loaded(need, std::move(table));
}

void Qcow2Metadata::add_loaded(const Need& need, std::unique_ptr<std::byte[]> table) {
  TableCache& cache = cache_of(need);
  if (cache.find(need.value) == nullptr) cache.add(need.value, std::move(table));
}

// ---- commits

bool Qcow2Metadata::Commit::has_writes() const {
  return std::ranges::any_of(stages, [](const auto& writes) { return !writes.empty(); });
}

void Qcow2Metadata::cut_tables(TableCache& cache, ClusterUse use, Commit& commit,
                               std::vector<MetadataWrite>& writes) {
  for (CachedTable* table : cache.take_dirty()) {
    ++table->pins;
    commit.tables_.push_back(
        {.cache = &cache, .table = table, .from = table->dirty_from, .to = table->dirty_to});
    const size_t from = table->dirty_from & ~(kWriteUnit - 1);
    const size_t to = std::min((table->dirty_to + kWriteUnit - 1) & ~(kWriteUnit - 1), table->size);
    table->dirty_from = table->dirty_to = 0;
    const auto bytes = table->bytes().subspan(from, to - from);
    writes.push_back({.offset = table->offset + from,
                      .bytes = std::vector<std::byte>(bytes.begin(), bytes.end()),
                      .use = use});
  }
}

MetadataWrite Qcow2Metadata::cut_entries(uint64_t table_offset,
                                         const std::vector<uint64_t>& entries, size_t from,
                                         size_t to, ClusterUse use) const {
  // Whole blocks of the device, but not past the clusters of the table.
  const uint64_t unit = std::min<uint64_t>(kWriteUnit, layout_.cluster_size()) / 8;
  from = from / unit * unit;
  to = (to + unit - 1) / unit * unit;
  MetadataWrite write{.offset = table_offset + from * 8,
                      .bytes = std::vector<std::byte>((to - from) * 8),
                      .use = use};
  for (size_t i = from; i < std::min(to, entries.size()); ++i) {
    store_big_endian(write.bytes, (i - from) * 8, entries[i]);
  }
  return write;
}

MetadataWrite Qcow2Metadata::cut_header(const Qcow2Header& header) {
  MetadataWrite write{.bytes = header_sector_, .use = ClusterUse::kHeader};
  patch_qcow2_header(header, write.bytes);
  return write;
}

void Qcow2Metadata::cut_headers(Commit& commit) {
  header_.refcount_table_offset = refcounts_.table_offset();
  header_.refcount_table_clusters =
      static_cast<uint32_t>(layout_.clusters(refcounts_.table().size() * 8));
  header_.l1_offset = l2_.l1_offset();
  header_.l1_entries = static_cast<uint32_t>(l2_.l1().size());
  commit.middle_ = stable_;
  commit.last_ = header_;
  if (commit.refcount_table_.moved) {
    commit.middle_.refcount_table_offset = header_.refcount_table_offset;
    commit.middle_.refcount_table_clusters = header_.refcount_table_clusters;
    commit.stages[2].push_back(cut_header(commit.middle_));
  }
  if (header_is_open_ || header_.size != stable_.size || header_.l1_offset != stable_.l1_offset ||
      header_.l1_entries != stable_.l1_entries) {
    commit.stages[5].push_back(cut_header(header_));
  }
}

bool Qcow2Metadata::may_write(const MetadataWrite& write) {
  const uint64_t first = write.offset >> layout_.cluster_bits;
  const uint64_t count = layout_.clusters(write.offset + write.bytes.size()) - first;
  if (map_.is_all(first, count, write.use)) return true;
  damage_.report(
      format_text("a write of metadata would overlap other metadata at {:#x}", write.offset));
  return false;
}

Need Qcow2Metadata::begin_commit(Commit& commit) {
  if (damage_.found()) return Need::failed(EIO);
  if (Need need = refcounts_.prepare_commit(); !need.is_nothing()) return need;
  cut_tables(refcounts_.blocks(), ClusterUse::kRefcountBlock, commit, commit.stages[0]);
  commit.refcount_table_ = refcounts_.take_change();
  const auto& table = refcounts_.table();
  if (const auto& change = commit.refcount_table_; change.any()) {
    commit.stages[1].push_back(
        cut_entries(refcounts_.table_offset(), table, change.moved ? 0 : change.from,
                    change.moved ? table.size() : change.to, ClusterUse::kRefcountTable));
  }
  cut_tables(l2_.tables(), ClusterUse::kL2, commit, commit.stages[3]);
  commit.l1_ = l2_.take_change();
  if (const auto& change = commit.l1_; change.any()) {
    commit.stages[4].push_back(
        cut_entries(l2_.l1_offset(), l2_.l1(), change.moved ? 0 : change.from,
                    change.moved ? l2_.l1().size() : change.to, ClusterUse::kL1));
  }
  cut_headers(commit);
  commit.freed = std::exchange(freed_, {});
  for (const ClusterRun& run : refcounts_.take_freed()) commit.freed.push_back(run);
  for (const auto& writes : commit.stages) {
    for (const MetadataWrite& write : writes) {
      if (may_write(write)) continue;
      end_commit(commit, false);
      return Need::failed(EIO);
    }
  }
  return {};
}

void Qcow2Metadata::stage_begins(const Commit& commit, size_t stage) {
  if (commit.stages[stage].empty()) return;
  if (stage == 2) written_ = commit.middle_;
  if (stage == 5) written_ = commit.last_;
}

void Qcow2Metadata::end_commit(Commit& commit, bool is_stable) {
  for (const Commit::Range& range : commit.tables_) {
    --range.table->pins;
    if (!is_stable) range.cache->mark_dirty(*range.table, range.from, range.to);
  }
  commit.tables_.clear();
  if (is_stable) {
    stable_ = commit.last_;
    header_is_open_ = false;
    return;
  }
  // Perhaps the header has been written: it is again, with what is true then.
  if (!commit.stages[5].empty()) header_is_open_ = true;
  refcounts_.give_back(commit.refcount_table_);
  l2_.give_back(commit.l1_);
  freed_.insert(freed_.end(), commit.freed.begin(), commit.freed.end());
  commit.freed.clear();
}

std::vector<std::byte> Qcow2Metadata::damaged_header() {
  if (layout_.version < 3) return {};
  Qcow2Header header = written_;
  header.incompatible |= kQcow2IncompatibleCorrupt;
  return cut_header(header).bytes;
}

}  // namespace crosvm
