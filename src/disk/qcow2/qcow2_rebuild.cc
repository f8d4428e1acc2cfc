#include <algorithm>
#include <iterator>

#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_checker.h"
#include "disk/qcow2/refcounts.h"

namespace crosvm {

/// Where nothing is, not even old counts; else at the end of the file, which a block device does
/// not move.
uint64_t Qcow2Checker::find_free(uint64_t count) const {
  const uint64_t end = file_.size() >> layout_.cluster_bits;
  for (uint64_t at = 0; at + count <= end;) {
    const uint64_t used = counts_.next_used(at, at + count);
    if (used == at + count) return at;
    at = used + 1;
  }
  return file_clusters_;
}

/// The table first, then the blocks, all in a free place; the header is changed last.
Result<void> Qcow2Checker::rebuild() {
  const uint64_t per_block = layout_.refcounts_per_block();
  const Error no_room(std::errc::file_too_large,
                      format_text("{}: there is no room for its refcounts", object_));
  constexpr uint64_t kMostBlocks = kQcow2MostRefcountTableBytes / 8;
  if (counts_.end() / per_block >= kMostBlocks) return fail(no_room);
  std::vector<uint64_t> used;  // indexes of blocks that are needed
  for (uint64_t index = 0; index * per_block < counts_.end(); ++index) {
    if (counts_.any(index * per_block, per_block)) used.push_back(index);
  }
  uint64_t first = 0;
  uint64_t table_clusters = 1;
  std::vector<uint64_t> all = used;
  for (uint64_t count = 0; count < table_clusters + all.size();) {
    count = table_clusters + all.size();
    first = find_free(count);
    std::vector<uint64_t> own;  // of blocks that count these clusters
    for (uint64_t i = first / per_block; i * per_block < first + count; ++i) own.push_back(i);
    all.clear();
    std::ranges::set_union(used, own, std::back_inserter(all));
    table_clusters = layout_.clusters((all.back() + 1) * 8);
    if ((table_clusters << layout_.cluster_bits) > kQcow2MostRefcountTableBytes) {
      return fail(no_room);
    }
  }
  const uint64_t old_first = header_.refcount_table_offset >> layout_.cluster_bits;
  for (uint64_t i = 0; i < header_.refcount_table_clusters; ++i) counts_.remove(old_first + i);
  for (uint64_t block : blocks_) {
    if (block != 0) counts_.remove(block >> layout_.cluster_bits);
  }
  for (uint64_t i = 0; i < table_clusters + all.size(); ++i) counts_.add(first + i);
  TRY(expect_room());
  TRY(write_counts(first, table_clusters, all));
  punch_unused();
  return {};
}

Result<void> Qcow2Checker::write_counts(uint64_t first, uint64_t table_clusters,
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

void Qcow2Checker::punch_unused() {
  for (uint64_t cluster = 0; cluster < file_clusters_;) {
    const uint64_t used = counts_.next_used(cluster, file_clusters_);
    if (used > cluster) {
      file_.punch(cluster << layout_.cluster_bits, (used - cluster) << layout_.cluster_bits);
    }
    cluster = used + 1;
  }
}

}  // namespace crosvm
