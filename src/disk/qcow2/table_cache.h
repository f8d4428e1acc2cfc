#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace crosvm {

/// A table of the file in memory, as its bytes are there: an L2 table or a block of refcounts.
struct CachedTable {
  uint64_t offset = 0;  ///< in the file
  std::unique_ptr<std::byte[]> memory;
  size_t size = 0;
  // The bytes that are newer than those in the file.
  size_t dirty_from = 0;
  size_t dirty_to = 0;
  uint32_t pins = 0;   ///< holders to whom it must stay
  uint64_t moved = 0;  ///< how many moves to the front there had been when it was moved there

  std::span<std::byte> bytes() const { return {memory.get(), size}; }
  bool is_dirty() const { return dirty_from < dirty_to; }
};

/// Tables of one size. What is dirty or pinned stays; of the rest those go that have not been used
/// for long. What is neither stays for at least kFewest / 2 others that are added after its use.
class TableCache {
 public:
  static constexpr size_t kFewest = 8;  ///< tables that fit whatever their size

  TableCache(size_t table_bytes, size_t most_bytes)
      : table_bytes_(table_bytes), most_(std::max(most_bytes / table_bytes, kFewest)) {}

  size_t table_bytes() const { return table_bytes_; }
  /// Null when it is not here.
  CachedTable* find(uint64_t offset);
  /// A table of zeroes that is not here yet; others may go.
  CachedTable& add(uint64_t offset) {
    return add(offset, std::make_unique<std::byte[]>(table_bytes_));
  }
  /// The same of these bytes, `table_bytes` many.
  CachedTable& add(uint64_t offset, std::unique_ptr<std::byte[]> bytes);
  void mark_dirty(CachedTable& table, size_t from, size_t to);
  /// The table at `offset`, if it is here, is none any more.
  void forget(uint64_t offset);
  /// All that is dirty; the caller makes each of them clean, by its range.
  std::vector<CachedTable*> take_dirty() { return std::exchange(dirty_, {}); }
  bool is_dirty() const { return !dirty_.empty(); }
  /// So much is dirty that it should be written.
  bool is_heavy() const { return dirty_.size() >= most_ / 2; }
  /// No more may become dirty.
  bool is_full() const { return dirty_.size() >= most_; }

 private:
  using List = std::list<CachedTable>;
  void make_room();

  const size_t table_bytes_;
  const size_t most_;
  List tables_;         // those used lately are in the first half
  uint64_t moves_ = 0;  // to the front
  List::iterator last_found_ = tables_.end();
  std::unordered_map<uint64_t, List::iterator> by_offset_;
  std::vector<CachedTable*> dirty_;
};

}  // namespace crosvm
