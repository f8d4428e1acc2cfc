#include "disk/qcow2/table_cache.h"

#include <iterator>

#include "base/result.h"

namespace crosvm {

CachedTable* TableCache::find(uint64_t offset) {
  if (last_found_ == tables_.end() || last_found_->offset != offset) {
    auto found = by_offset_.find(offset);
    if (found == by_offset_.end()) return nullptr;
    last_found_ = found->second;
  }
  // No more tables stand before it than have moved since. While it is far enough in front it stays
  // where it is: a lookup changes nothing then.
  if (moves_ - last_found_->moved >= most_ / 2) {
    tables_.splice(tables_.begin(), tables_, last_found_);
    last_found_->moved = ++moves_;
  }
  return &*last_found_;
}

CachedTable& TableCache::add(uint64_t offset, std::unique_ptr<std::byte[]> bytes) {
  CHECK(!by_offset_.contains(offset));
  make_room();
  tables_.push_front({.offset = offset, .memory = std::move(bytes), .size = table_bytes_});
  tables_.front().moved = ++moves_;
  by_offset_.emplace(offset, tables_.begin());
  return tables_.front();
}

void TableCache::make_room() {
  // Few are dirty or pinned, and those were used lately.
  for (auto at = tables_.end(); tables_.size() >= most_ && at != tables_.begin();) {
    --at;
    if (at->is_dirty() || at->pins > 0) continue;
    if (at == last_found_) last_found_ = tables_.end();
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
  if (found->second == last_found_) last_found_ = tables_.end();
  std::erase(dirty_, &*found->second);
  tables_.erase(found->second);
  by_offset_.erase(found);
}

}  // namespace crosvm
