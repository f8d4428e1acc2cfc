#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/format.h"
#include "base/result.h"
#include "disk/qcow2/cluster_counts.h"
#include "disk/qcow2/metadata_map.h"
#include "disk/qcow2/qcow2_bitmaps.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_layout.h"
#include "disk/qcow2/sync_file.h"

namespace crosvm {

/// Walks an image once. A table is read in whole; nothing else of the image stays in memory but
/// the counts.
class Qcow2Checker {
 public:
  /// The counts take `most_bytes` at most.
  Qcow2Checker(SyncFile& file, const std::string& object, size_t most_bytes)
      : file_(file), object_(object), counts_(most_bytes) {}

  /// Counts all uses. Errors: those of reading and of `parse_qcow2_header`; not_supported for a
  /// file that is too large, or takes too much memory.
  Result<void> walk();
  /// Compares the counts with those in the image, and the flags in the active tables.
  Result<void> compare(bool fix_flags);
  /// Writes the counts into the image, in a place of their own, and gives back what is not used.
  Result<void> rebuild();
  Qcow2Report& report() { return report_; }

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
    constexpr size_t kMostMessages = 100;
    if (report_.messages.size() < kMostMessages) report_.messages.push_back(std::move(message));
  }
  /// `each` entry of a table of 64-bit ones: its index and value. All fits into little memory.
  template <class Each>
  Result<void> for_entries(uint64_t offset, uint64_t count, Each each) {
    constexpr uint64_t kPart = 65536;
    for (uint64_t from = 0; from < count; from += kPart) {
      const auto part = TRY(read_entries(offset + from * 8, std::min(kPart, count - from)));
      for (size_t i = 0; i < part.size(); ++i) TRY(each(from + i, part[i]));
    }
    return {};
  }
  /// `each` part of an L2 table, with the index of its first entry. What is a hole maps nothing,
  /// and is left out: a small file can have many tables.
  template <class Each>
  Result<void> for_l2_parts(uint64_t offset, Each each) {
    constexpr uint64_t kMostBytes = 64 << 10;
    if (file_.is_hole(offset, layout_.cluster_size())) return {};
    std::vector<std::byte> part(std::min(layout_.cluster_size(), kMostBytes));
    const bool is_one = part.size() == layout_.cluster_size();
    for (uint64_t at = 0; at < layout_.cluster_size(); at += part.size()) {
      if (!is_one && file_.is_hole(offset + at, part.size())) continue;
      TRY(file_.read_at(offset + at, part));
      TRY(each(std::span(part), at / layout_.entry_size()));
    }
    return {};
  }
  Result<void> read_header();
  Result<void> expect_room() const;
  Result<std::vector<uint64_t>> read_entries(uint64_t offset, uint64_t count);
  bool claim(std::string_view what, uint64_t offset, uint64_t bytes, ClusterUse use);
  Result<void> find_snapshots();
  void find_bitmaps();
  Result<void> claim_bitmap(const Qcow2Bitmap& bitmap);
  Result<void> claim_blocks();
  void check_l1_entry(uint64_t entry, uint64_t place);
  Result<void> claim_l2_tables(const Table& l1);
  Result<void> walk_l1(const Table& l1);
  Result<void> walk_l2(uint64_t offset, uint64_t guest, bool is_active);
  void count_entry(const Qcow2Entry& entry, uint64_t guest);
  void count_compressed(const Qcow2Entry& entry, uint64_t guest);
  Qcow2Entry entry_of(std::span<const std::byte> table, uint64_t index) const;
  Result<void> compare_refcounts();
  void compare_block(std::span<const std::byte> block, uint64_t first);
  Result<uint64_t> stored_refcount(uint64_t cluster);
  Result<void> tell_flag(std::string_view what, uint64_t cluster, bool is_set);
  Result<void> compare_flags(bool fix);
  Result<void> compare_l2_flags(uint64_t offset, bool fix);
  Result<void> write_counts(uint64_t first, uint64_t table_clusters,
                            const std::vector<uint64_t>& blocks);
  uint64_t find_free(uint64_t count) const;
  void punch_unused();

  SyncFile& file_;
  const std::string& object_;
  Qcow2Header header_;
  Qcow2Layout layout_;
  uint64_t file_clusters_ = 0;
  MetadataMap map_;
  ClusterCounts counts_;
  bool is_map_full_ = false;
  uint64_t times_ = 1;  // that the L2 table is named, through which it goes
  std::vector<uint64_t> blocks_;
  std::vector<Table> l1_tables_;
  std::vector<Qcow2Bitmap> bitmaps_;
  Qcow2Report report_;
};

}  // namespace crosvm
