#include "disk/qcow2/l2_map.h"

#include <algorithm>

#include "base/format.h"
#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_header.h"

namespace crosvm {

using Need = Qcow2Need;
using UnitKind = Qcow2UnitKind;

L2Map::L2Map(const Qcow2Layout& layout, MetadataMap& map, Refcounts& refcounts, Qcow2Damage& damage,
             size_t cache_bytes)
    : layout_(layout),
      map_(map),
      refcounts_(refcounts),
      damage_(damage),
      tables_(static_cast<size_t>(layout.cluster_size()), cache_bytes) {}

void L2Map::set_l1(uint64_t offset, std::vector<uint64_t> entries) {
  l1_offset_ = offset;
  l1_ = std::move(entries);
}

int L2Map::broken_table(uint64_t guest) {
  return damage_.report(format_text("the L2 table for {:#x} lies where it cannot be", guest));
}

Need L2Map::find_table(uint64_t guest, CachedTable*& table) {
  table = nullptr;
  const uint64_t index = layout_.l1_index(guest);
  if (index >= l1_.size()) return Need::failed(broken_table(guest));
  const uint64_t offset = l1_[index] & kQcow2OffsetMask;
  // Whatever else such an entry has, it is no sign that nothing is mapped: a table may be lost.
  if (offset == 0 && l1_[index] != 0) return Need::failed(broken_table(guest));
  if (offset == 0) return {};
  table = tables_.find(offset);
  if (table != nullptr) return {};
  const ClusterUse use = map_.use(offset >> layout_.cluster_bits);
  const bool is_there = use == ClusterUse::kL2 || use == ClusterUse::kSnapshotL2;
  if (layout_.in_cluster(offset) != 0 || !is_there) return Need::failed(broken_table(guest));
  return {.kind = Need::Kind::kL2, .value = offset};
}

bool L2Map::owns_table(uint64_t guest) const {
  const uint64_t entry = l1_[layout_.l1_index(guest)];
  const uint64_t cluster = (entry & kQcow2OffsetMask) >> layout_.cluster_bits;
  return (entry & kQcow2Copied) != 0 && map_.use(cluster) == ClusterUse::kL2;
}

Need L2Map::writable_table(uint64_t guest, CachedTable*& table, std::vector<ClusterRun>& freed) {
  if (Need need = find_table(guest, table); !need.is_nothing()) return need;
  CachedTable* old = table;
  const uint64_t index = layout_.l1_index(guest);
  const uint64_t old_cluster = (l1_[index] & kQcow2OffsetMask) >> layout_.cluster_bits;
  if (old != nullptr && owns_table(guest)) return {};
  if (old != nullptr) ++old->pins;
  Need need = make_table(guest, old, table);
  if (old != nullptr) --old->pins;
  if (need.is_nothing() && old != nullptr) freed.push_back({.first = old_cluster, .count = 1});
  return need;
}

/// What a shared table names is shared, whatever it says; a data file has one place for each
/// cluster.
void L2Map::copy_table(const CachedTable& from, CachedTable& to) const {
  std::ranges::copy(from.bytes(), to.bytes().begin());
  if (layout_.external_data) return;
  for (size_t at = 0; at < to.size; at += layout_.entry_size()) {
    const Qcow2Entry entry{.word = load_big_endian<uint64_t>(to.bytes(), at)};
    if (entry.is_compressed() || entry.host() == 0) continue;  // with the flag it is broken
    store_big_endian(to.bytes(), at, entry.word & ~kQcow2Copied);
  }
}

Need L2Map::make_table(uint64_t guest, CachedTable* old, CachedTable*& table) {
  Refcounts::Allocated place;
  if (Need need = refcounts_.allocate(1, ClusterUse::kL2, place); !need.is_nothing()) return need;
  const uint64_t offset = place.run.first << layout_.cluster_bits;
  table = &tables_.add(offset);
  if (old != nullptr) copy_table(*old, *table);
  tables_.mark_dirty(*table, 0, table->size);
  set_l1_entry(layout_.l1_index(guest), offset | kQcow2Copied);
  return {};
}

void L2Map::set_l1_entry(uint64_t index, uint64_t value) {
  l1_[index] = value;
  give_back({.from = index, .to = index + 1});
}

void L2Map::give_back(const L1Change& since) {
  change_.moved = change_.moved || since.moved;
  L1Change change = since;  // the table may have become shorter
  change.to = std::min(change.to, l1_.size());
  change.from = std::min(change.from, change.to);
  if (change.from == change.to) return;
  const bool empty = change_.from == change_.to;
  change_.from = empty ? change.from : std::min(change_.from, change.from);
  change_.to = empty ? change.to : std::max(change_.to, change.to);
}

Qcow2Entry L2Map::entry(const CachedTable& table, uint64_t guest) const {
  const size_t at = static_cast<size_t>(layout_.l2_index(guest) * layout_.entry_size());
  Qcow2Entry entry{.word = load_big_endian<uint64_t>(table.bytes(), at)};
  if (layout_.extended_l2) entry.bitmap = load_big_endian<uint64_t>(table.bytes(), at + 8);
  return entry;
}

void L2Map::set_entry(CachedTable& table, uint64_t guest, const Qcow2Entry& entry) {
  const size_t at = static_cast<size_t>(layout_.l2_index(guest) * layout_.entry_size());
  store_big_endian(table.bytes(), at, entry.word);
  if (layout_.extended_l2) store_big_endian(table.bytes(), at + 8, entry.bitmap);
  tables_.mark_dirty(table, at, at + layout_.entry_size());
}

MappedRun L2Map::run(const CachedTable* table, uint64_t guest, uint64_t most) const {
  most = std::min(most, bytes_to_table_end(guest));
  if (table == nullptr) return {.length = most, .entry = {}};
  const Qcow2Entry first = entry(*table, guest);
  MappedRun found{.kind = layout_.kind(first, guest, layout_.unit_index(guest)), .entry = first};
  found.host = first.host() + layout_.in_cluster(guest);
  if (found.kind == UnitKind::kCompressed) {
    found.length = std::min(most, layout_.cluster_end(guest) - guest);
    return found;
  }
  const uint64_t unit = layout_.unit_size();
  Qcow2Entry entry = first;
  uint64_t at = (guest & ~(unit - 1)) + unit;
  for (; at < guest + most; at += unit) {
    if (layout_.in_cluster(at) == 0) entry = this->entry(*table, at);
    if (layout_.kind(entry, at, layout_.unit_index(at)) != found.kind) break;
    const bool adjacent = entry.host() + layout_.in_cluster(at) == found.host + (at - guest);
    if (found.kind == UnitKind::kData && !adjacent) break;
    // Whether it may be written in place is the same for all of a run.
    if (found.kind == UnitKind::kData && entry.is_copied() != first.is_copied()) break;
  }
  found.length = std::min(at - guest, most);
  return found;
}

Need L2Map::grow_l1(uint64_t entries, std::vector<ClusterRun>& freed) {
  const uint64_t held = layout_.clusters(l1_.size() * 8);
  const uint64_t needed = layout_.clusters(entries * 8);
  if (entries > kQcow2MostL1Entries) return Need::failed(EFBIG);
  if (needed > held) {
    Refcounts::Allocated place;
    Need need = refcounts_.allocate_adjacent(needed, ClusterUse::kL1, place);
    if (!need.is_nothing()) return need;
    if (held > 0) freed.push_back({.first = l1_offset_ >> layout_.cluster_bits, .count = held});
    l1_offset_ = place.run.first << layout_.cluster_bits;
    change_.moved = true;
  }
  const size_t before = l1_.size();
  if (entries <= before) return {};
  l1_.resize(entries);
  give_back({.from = before, .to = l1_.size()});
  return {};
}

void L2Map::shorten_l1(uint64_t entries, std::vector<ClusterRun>& freed) {
  size_t left = l1_.size();
  while (left > entries && l1_[left - 1] == 0) --left;
  const uint64_t held = layout_.clusters(l1_.size() * 8);
  const uint64_t needed = layout_.clusters(left * 8);
  if (needed < held) {
    freed.push_back(
        {.first = (l1_offset_ >> layout_.cluster_bits) + needed, .count = held - needed});
  }
  l1_.resize(left);
  give_back(std::exchange(change_, {}));
}

void L2Map::drop_tables_from(uint64_t entries, std::vector<ClusterRun>& freed) {
  for (uint64_t index = entries; index < l1_.size(); ++index) {
    const uint64_t offset = l1_[index] & kQcow2OffsetMask;
    if (offset == 0) continue;
    freed.push_back({.first = offset >> layout_.cluster_bits, .count = 1});
    set_l1_entry(index, 0);
  }
}

}  // namespace crosvm
