#include "disk/qcow2/qcow2_check.h"

#include <algorithm>
#include <array>
#include <utility>

#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_checker.h"
#include "disk/qcow2/refcounts.h"

namespace crosvm {

/// To the end of the last block that counts clusters of the file.
Result<void> Qcow2Checker::compare_refcounts() {
  const uint64_t per_block = layout_.refcounts_per_block();
  const uint64_t end = std::max(file_clusters_, counts_.end());
  std::vector<std::byte> block(layout_.cluster_size());
  for (uint64_t index = 0; index * per_block < end; ++index) {
    const uint64_t offset = index < blocks_.size() ? blocks_[index] : 0;
    if (offset != 0 && !file_.is_hole(offset, layout_.cluster_size())) {
      TRY(file_.read_at(offset, block));
    } else if (counts_.any(index * per_block, per_block)) {
      std::ranges::fill(block, std::byte{0});
    } else {
      continue;
    }
    compare_block(block, index * per_block);
  }
  return {};
}

void Qcow2Checker::compare_block(std::span<const std::byte> block, uint64_t first) {
  const uint64_t per_block = layout_.refcounts_per_block();
  const uint64_t per_word = 64 >> layout_.refcount_order;
  for (uint64_t at = 0; at < per_block;) {
    const uint64_t cluster = first + at;
    // Most of many a block counts nothing.
    if (at % per_word == 0 && load_big_endian<uint64_t>(block, at / per_word * 8) == 0 &&
        !counts_.any(cluster, per_word)) {
      at += per_word;
      continue;
    }
    const uint64_t is = load_refcount(block, at++, layout_.refcount_order);
    const uint64_t should = counts_.get(cluster);
    if (should == ClusterCounts::kMany) {
      error("the cluster at {:#x} has more uses than any image needs",
            cluster << layout_.cluster_bits);
    } else if (header_.is_dirty()) {
      continue;  // nobody believes them before they have been counted anew
    } else if (is > should) {
      ++report_.leaks;
      tell(format_text("the cluster at {:#x} has the refcount {}, with {} uses",
                       cluster << layout_.cluster_bits, is, should));
    } else if (is < should) {
      error("the cluster at {:#x} has the refcount {}, with {} uses",
            cluster << layout_.cluster_bits, is, should);
    }
  }
}

/// A flag that is not what the uses say. Without one a cluster whose refcount is too high is only
/// leaked, as by a snapshot's deletion that was cut off.
Result<void> Qcow2Checker::tell_flag(std::string_view what, uint64_t cluster, bool is_set) {
  if (header_.is_dirty()) return {};
  if (!is_set && TRY(stored_refcount(cluster)) > 1) return {};
  error("the copied flag of the {} at {:#x} is wrong", what, cluster << layout_.cluster_bits);
  return {};
}

Result<uint64_t> Qcow2Checker::stored_refcount(uint64_t cluster) {
  const uint64_t per_block = layout_.refcounts_per_block();
  const uint64_t per_word = 64 >> layout_.refcount_order;
  const uint64_t index = cluster / per_block;
  if (index >= blocks_.size() || blocks_[index] == 0) return 0;
  std::array<std::byte, 8> word;
  TRY(file_.read_at(blocks_[index] + cluster % per_block / per_word * 8, word));
  return load_refcount(word, cluster % per_word, layout_.refcount_order);
}

Result<void> Qcow2Checker::compare_l2_flags(uint64_t offset, bool fix) {
  return for_l2_parts(offset, [&](std::span<std::byte> part, uint64_t first) -> Result<void> {
    bool changed = false;
    for (uint64_t i = 0; i < part.size() / layout_.entry_size(); ++i) {
      const Qcow2Entry entry = entry_of(part, i);
      const uint64_t cluster = entry.host() >> layout_.cluster_bits;
      if (entry.is_compressed() || entry.host() == 0 || cluster >= file_clusters_) continue;
      if (entry.is_copied() == (counts_.get(cluster) == 1)) continue;
      TRY(tell_flag("cluster", cluster, entry.is_copied()));
      store_big_endian(part, i * layout_.entry_size(), entry.word ^ kQcow2Copied);
      changed = true;
    }
    if (!changed || !fix) return {};
    return file_.write_at(offset + first * layout_.entry_size(), part);
  });
}

Result<void> Qcow2Checker::compare_flags(bool fix) {
  if (layout_.external_data) return {};
  const uint64_t l1 = header_.l1_offset;
  return for_entries(l1, header_.l1_entries, [&](uint64_t i, uint64_t entry) -> Result<void> {
    const uint64_t offset = entry & kQcow2OffsetMask;
    const uint64_t cluster = offset >> layout_.cluster_bits;
    const ClusterUse use = map_.use(cluster);
    if (use != ClusterUse::kWalkedL2 && use != ClusterUse::kComparedL2) return {};
    const bool is_own = counts_.get(cluster) == 1;
    if (((entry & kQcow2Copied) != 0) != is_own) {
      TRY(tell_flag("L2 table", cluster, !is_own));
      std::array<std::byte, 8> bytes;
      store_big_endian(bytes, 0, entry ^ kQcow2Copied);
      if (fix) TRY(file_.write_at(l1 + i * 8, bytes));
    }
    if (use == ClusterUse::kComparedL2) return {};
    map_.set(cluster, ClusterUse::kComparedL2);
    return compare_l2_flags(offset, fix);
  });
}

Result<void> Qcow2Checker::compare(bool fix_flags) {
  TRY(compare_refcounts());
  return compare_flags(fix_flags);
}

namespace {

/// The flags first: cut off after them, what is left are leaks.
Result<void> count_anew(SyncFile& file, const std::string& object, size_t most_bytes) {
  Qcow2Checker checker(file, object, most_bytes);
  TRY(checker.walk());
  if (checker.report().errors == 0) TRY(checker.compare(true));
  if (checker.report().errors > 0) {
    return fail(Error::invalid(
        format_text("{}: {}; the qcow2 image is damaged: repair it with qemu-img check -r all",
                    object, checker.report().messages.front())));
  }
  return checker.rebuild();
}

}  // namespace

Result<Qcow2Report> check_qcow2(SyncFile& file, const std::string& object, Qcow2Repair repair) {
  constexpr size_t kMostBytes = 512 << 20;
  Qcow2Report report;
  {
    Qcow2Checker checker(file, object, kMostBytes);  // its counts go before there are others
    TRY(checker.walk());
    TRY(checker.compare(false));
    report = std::move(checker.report());
  }
  if (repair == Qcow2Repair::kLeaks && report.errors == 0 && report.leaks > 0) {
    TRY(count_anew(file, object, kMostBytes));
  }
  return report;
}

Result<void> rebuild_qcow2_refcounts(SyncFile& file, const std::string& object) {
  constexpr size_t kMostBytes = 96 << 20;  // a VM does this in a jail
  return count_anew(file, object, kMostBytes);
}

}  // namespace crosvm
