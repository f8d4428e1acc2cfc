#include "disk/qcow2/table_cache.h"

#include <iterator>

#include "base/result.h"

namespace crosvm {

CachedTable* TableCache::find(uint64_t offset) {
  if (!tables_.empty() && tables_.front().offset == offset) return &tables_.front();
  auto found = by_offset_.find(offset);
  if (found == by_offset_.end()) return nullptr;
  tables_.splice(tables_.begin(), tables_, found->second);
  return &tables_.front();
}

CachedTable& TableCache::add(uint64_t offset) {
  CHECK(!by_offset_.contains(offset));
  make_room();
  tables_.push_front({.offset = offset,
                      .memory = std::make_unique<std::byte[]>(table_bytes_),
                      .size = table_bytes_});
  by_offset_.emplace(offset, tables_.begin());
  return tables_.front();
}

void TableCache::make_room() {
  // Few are dirty or pinned, and those were used lately.
  for (auto at = tables_.end(); tables_.size() >= most_ && at != tables_.begin();) {
    --at;
    if (at->is_dirty() || at->pins > 0) continue;
    by_offset_.erase(at->offset);
    at = tables_.erase(at);
  }
}

void TableCache::mark_dirty(CachedTable& table, size_t from, size_t to) {
  if (!table.is_dirty()) {
    table.dirty_from = from;
    table.dirty_to = to;
    dirty_.push_back(&table);
    return;
  }
  table.dirty_from = std::min(table.dirty_from, from);
  table.dirty_to = std::max(table.dirty_to, to);
}

void TableCache::forget(uint64_t offset) {
  auto found = by_offset_.find(offset);
  if (found == by_offset_.end()) return;
  CHECK(found->second->pins == 0);
  std::erase(dirty_, &*found->second);
  tables_.erase(found->second);
  by_offset_.erase(found);
}

}  // namespace crosvm
