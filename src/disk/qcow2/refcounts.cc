#include "disk/qcow2/refcounts.h"

#include <algorithm>
#include <cerrno>

#include "base/format.h"
#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_header.h"

namespace crosvm {

using Need = Qcow2Need;

uint64_t load_refcount(std::span<const std::byte> block, uint64_t index, uint32_t order) {
  switch (order) {
    case 3:
      return load_big_endian<uint8_t>(block, index);
    case 4:
      return load_big_endian<uint16_t>(block, index * 2);
    case 5:
      return load_big_endian<uint32_t>(block, index * 4);
    case 6:
      return load_big_endian<uint64_t>(block, index * 8);
    default: {
      const uint64_t bit = index << order;
      const uint32_t mask = (1U << (1U << order)) - 1;
      return (static_cast<uint32_t>(block[bit / 8]) >> (bit % 8)) & mask;
    }
  }
}

void store_refcount(std::span<std::byte> block, uint64_t index, uint32_t order, uint64_t value) {
  switch (order) {
    case 3:
      return store_big_endian(block, index, static_cast<uint8_t>(value));
    case 4:
      return store_big_endian(block, index * 2, static_cast<uint16_t>(value));
    case 5:
      return store_big_endian(block, index * 4, static_cast<uint32_t>(value));
    case 6:
      return store_big_endian(block, index * 8, value);
    default: {
      const uint64_t bit = index << order;
      const uint32_t mask = ((1U << (1U << order)) - 1) << (bit % 8);
      const uint32_t old = static_cast<uint32_t>(block[bit / 8]);
      block[bit / 8] = static_cast<std::byte>((old & ~mask) |
                                              ((static_cast<uint32_t>(value) << (bit % 8)) & mask));
    }
  }
}

Refcounts::Refcounts(const Qcow2Layout& layout, MetadataMap& map, Qcow2Damage& damage,
                     size_t cache_bytes)
    : layout_(layout),
      map_(map),
      damage_(damage),
      blocks_(static_cast<size_t>(layout.cluster_size()), cache_bytes) {}

void Refcounts::set_table(uint64_t offset, std::vector<uint64_t> entries, uint64_t file_bytes) {
  table_offset_ = offset;
  table_ = std::move(entries);
  placed_clusters_ = layout_.clusters(table_.size() * 8);
  file_bytes_ = file_bytes;
  fresh_from_ = layout_.clusters(file_bytes);
}

void Refcounts::mark_table(size_t index) {
  if (change_.from == change_.to) {
    change_.from = index;
    change_.to = index + 1;
    return;
  }
  change_.from = std::min(change_.from, index);
  change_.to = std::max(change_.to, index + 1);
}

void Refcounts::give_back(const TableChange& change) {
  change_.moved = change_.moved || change.moved;
  if (change.from == change.to) return;
  mark_table(change.from);
  mark_table(change.to - 1);
}

void Refcounts::set(CachedTable& block, uint64_t cluster, uint64_t value) {
  const uint64_t index = cluster % layout_.refcounts_per_block();
  store_refcount(block.bytes(), index, layout_.refcount_order, value);
  const size_t at = static_cast<size_t>((index << layout_.refcount_order) / 8);
  const size_t size = std::max<size_t>(1, layout_.refcount_bits() / 8);
  blocks_.mark_dirty(block, at, at + size);
}

/// The block that counts the uses of `cluster`; null when it is yet to be made.
Need Refcounts::block_of(uint64_t cluster, CachedTable*& block) {
  block = nullptr;
  const uint64_t index = cluster / layout_.refcounts_per_block();
  if (index >= table_.size() || table_[index] == 0) return {};
  const uint64_t offset = table_[index];
  if (layout_.in_cluster(offset) != 0 ||
      map_.use(offset >> layout_.cluster_bits) != ClusterUse::kRefcountBlock) {
    return Need::failed(
        damage_.report(format_text("refcount block {} lies at {:#x}", index, offset)));
  }
  block = blocks_.find(offset);
  if (block == nullptr) return {.kind = Need::Kind::kBlock, .value = offset};
  return {};
}

Need Refcounts::get(uint64_t cluster, uint64_t& refcount) {
  CachedTable* block;
  if (Need need = block_of(cluster, block); !need.is_nothing()) return need;
  refcount = block == nullptr
                 ? 0
                 : load_refcount(block->bytes(), cluster % layout_.refcounts_per_block(),
                                 layout_.refcount_order);
  return {};
}

Need Refcounts::decrease(uint64_t cluster) {
  uint64_t refcount;
  if (Need need = get(cluster, refcount); !need.is_nothing()) return need;
  if (refcount == 0) {
    return Need::failed(damage_.report(format_text(
        "the cluster at {:#x} was used without a refcount", cluster << layout_.cluster_bits)));
  }
  CachedTable* block;
  (void)block_of(cluster, block);  // it has just been there
  set(*block, cluster, refcount - 1);
  if (refcount > 1) return {};
  // What belongs to snapshots, or to nobody knows what, stays metadata whatever refcounts say.
  const ClusterUse use = map_.use(cluster);
  if (use == ClusterUse::kL2 || use == ClusterUse::kL1 || use == ClusterUse::kRefcountTable) {
    map_.release(cluster);
  }
  hint_ = std::min(hint_, cluster);
  adjacent_from_ = std::min(adjacent_from_, cluster);
  return {};
}

/// Makes the block that counts `cluster`, the first free one it counts, there.
Need Refcounts::add_block(uint64_t cluster) {
  const uint64_t index = cluster / layout_.refcounts_per_block();
  if (index >= table_.size()) return grow_table(index);
  const uint64_t end = (cluster + 1) << layout_.cluster_bits;
  if (end > file_bytes_) return {.kind = Need::Kind::kFileSize, .value = end};
  const uint64_t offset = cluster << layout_.cluster_bits;
  if (!map_.has_room(1)) return Need::failed(EFBIG);
  if (map_.use(cluster) != ClusterUse::kData || blocks_.find(offset) != nullptr) {
    return Need::failed(damage_.report(format_text("metadata at {:#x} has no refcount", offset)));
  }
  CachedTable& block = blocks_.add(offset);
  blocks_.mark_dirty(block, 0, block.size);
  set(block, cluster, 1);
  map_.set(cluster, ClusterUse::kRefcountBlock);
  fresh_from_ = std::max(fresh_from_, cluster + 1);
  table_[index] = offset;
  mark_table(index);
  return {};
}

/// Only in memory; `place_table` finds room for it in the file.
Need Refcounts::grow_table(uint64_t block) {
  const uint64_t per_cluster = layout_.cluster_size() / 8;
  const uint64_t wanted = std::max<uint64_t>(block + 1, table_.size() + table_.size() / 2);
  const uint64_t entries = (wanted + per_cluster - 1) / per_cluster * per_cluster;
  if (entries * 8 > std::max(kQcow2MostRefcountTableBytes, layout_.cluster_size())) {
    return Need::failed(EFBIG);
  }
  table_.resize(entries);
  must_move_ = true;
  return {};
}

Need Refcounts::place_table() {
  while (must_move_) {
    const uint64_t count = layout_.clusters(table_.size() * 8);
    Allocated place;
    Need need = take(count, count, ClusterUse::kRefcountTable, adjacent_from_, place);
    if (!need.is_nothing()) return need;
    // The search may have made the table still larger; the place goes back then.
    if (layout_.clusters(table_.size() * 8) != count) {
      freed_.push_back(place.run);
      continue;
    }
    freed_.push_back({.first = table_offset_ >> layout_.cluster_bits, .count = placed_clusters_});
    placed_clusters_ = count;
    table_offset_ = place.run.first << layout_.cluster_bits;
    change_.moved = true;
    must_move_ = false;
  }
  return {};
}

Need Refcounts::find_run(uint64_t least, uint64_t most, uint64_t& from, ClusterRun& found) {
  found = {.first = from};
  uint64_t at = from;
  while (found.count < least) {
    if (at >= MetadataMap::kMostClusters || (at << layout_.cluster_bits) > kQcow2OffsetMask) {
      return Need::failed(EFBIG);
    }
    CachedTable* block;
    Need need = block_of(at, block);
    if (need.is_nothing() && block == nullptr) {
      need = add_block(at);
      if (need.is_nothing()) continue;  // look again, at a block that is there
    }
    if (!need.is_nothing()) {
      from = found.first;
      return need;
    }
    const uint64_t per_block = layout_.refcounts_per_block();
    const uint64_t end = (at / per_block + 1) * per_block;
    for (; at < end && found.count < most; ++at) {
      if (load_refcount(block->bytes(), at % per_block, layout_.refcount_order) == 0) {
        ++found.count;
      } else if (found.count >= least) {
        break;
      } else {
        found = {.first = at + 1};
      }
    }
  }
  return {};
}

Need Refcounts::take(uint64_t least, uint64_t most, ClusterUse use, uint64_t& from,
                     Allocated& taken) {
  ClusterRun run;
  if (use == ClusterUse::kL2 && !map_.has_room(most)) return Need::failed(EFBIG);
  if (Need need = find_run(least, most, from, run); !need.is_nothing()) return need;
  const uint64_t end = run.first + run.count;
  if ((end << layout_.cluster_bits) > file_bytes_) {
    from = run.first;
    return {.kind = Need::Kind::kFileSize, .value = end << layout_.cluster_bits};
  }
  if (!map_.is_all(run.first, run.count, ClusterUse::kData)) {
    return Need::failed(damage_.report(
        format_text("metadata at {:#x} has no refcount", run.first << layout_.cluster_bits)));
  }
  // All blocks first: there is no way back from the middle.
  CachedTable* block;
  for (uint64_t cluster = run.first; cluster < end; ++cluster) {
    if (Need need = block_of(cluster, block); !need.is_nothing()) return need;
  }
  for (uint64_t cluster = run.first; cluster < end; ++cluster) {
    (void)block_of(cluster, block);
    set(*block, cluster, 1);
    if (use != ClusterUse::kData) map_.set(cluster, use);
  }
  taken = {.run = run, .is_fresh = run.first >= fresh_from_};
  fresh_from_ = std::max(fresh_from_, end);
  from = least == 1 ? end : hint_;
  return {};
}

Need Refcounts::allocate_adjacent(uint64_t count, ClusterUse use, Allocated& taken) {
  adjacent_from_ = std::max(adjacent_from_, hint_);
  return take(count, count, use, adjacent_from_, taken);
}

}  // namespace crosvm
