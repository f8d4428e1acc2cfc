// Write-zeroes and discard: whole clusters only change their L2 entries.

#include <algorithm>
#include <cerrno>

#include "disk/qcow2/qcow2_operation.h"

namespace crosvm {

using Kind = DiskRequest::Kind;
using UnitKind = Qcow2UnitKind;

bool Qcow2Disk::Operation::zero_step() {
  Qcow2Metadata& metadata = *disk_.metadata_;
  const Qcow2Layout& layout = disk_.layout_;
  if (disk_.read_only_) return fail_with(EIO);
  if (metadata.is_full()) return wait_for_commit();
  CachedTable* table;
  if (auto need = metadata.l2().find_table(position_, table); !need.is_nothing()) {
    return wait(need);
  }
  // What lies past the end of the disk counts as covered.
  const uint64_t covered_end = end_ == disk_.size_
                                   ? layout.cluster_start(end_ - 1) + layout.cluster_size()
                                   : layout.cluster_start(end_);
  const bool whole = layout.in_cluster(position_) == 0 && position_ < covered_end;
  const bool is_discard = request_->kind == Kind::kDiscard;
  if (whole) {
    const uint64_t end =
        std::min(covered_end, position_ + metadata.l2().bytes_to_table_end(position_));
    if (layout.external_data) return zero_in_data_file(table, end);
    const bool hides_backing = layout.version < 3 && disk_.backing_bytes_from(position_) > 0;
    if (!hides_backing) return zero_clusters(table, end);
    if (is_discard) {
      position_ = std::min(end, end_);
      return true;
    }
  }
  const uint64_t part = std::min(end_, layout.cluster_end(position_));
  const MappedRun run = metadata.l2().run(table, position_, part - position_);
  if (run.kind == UnitKind::kBroken) return broken(position_);
  const bool reads_as_zero =
      run.kind == UnitKind::kZero ||
      (run.kind == UnitKind::kUnallocated && disk_.backing_bytes_from(position_) == 0);
  if (is_discard || reads_as_zero) {
    position_ += run.length;
    return true;
  }
  // Real zeroes, for this cluster alone.
  if (run.kind == UnitKind::kData && has_own(run.entry)) return write_in_place(run);
  const uint64_t end = std::exchange(end_, part);
  const bool stepped = allocate_step();
  end_ = end;
  return stepped;
}

/// What the entry of a cluster becomes that is to read as zeroes.
Qcow2Entry Qcow2Disk::Operation::zeroed(const Qcow2Entry& entry, uint64_t guest) const {
  const Qcow2Layout& layout = disk_.layout_;
  const bool keeps_space = request_->kind == Kind::kWriteZeroes && !request_->may_unmap;
  const bool keeps_host = keeps_space && entry.host() != 0 && !entry.is_compressed();
  Qcow2Entry zero;
  if (layout.version < 3) return zero;  // there is nothing below
  if (keeps_host && has_own(entry)) {
    zero.word = entry.host() | kQcow2Copied;
  } else if (disk_.backing_bytes_from(guest) == 0) {
    return zero;
  }
  if (layout.extended_l2) {
    zero.bitmap = kQcow2AllSubclusters << kQcow2Subclusters;
  } else {
    zero.word |= kQcow2Zero;
  }
  return zero;
}

bool Qcow2Disk::Operation::zero_clusters(CachedTable* table, uint64_t end) {
  Qcow2Metadata& metadata = *disk_.metadata_;
  const Qcow2Layout& layout = disk_.layout_;
  const uint64_t cluster = layout.cluster_size();
  const bool is_discard = request_->kind == Kind::kDiscard;
  // Where nothing is mapped and nothing lies below, all is zero.
  if (table == nullptr && (is_discard || disk_.backing_bytes_from(position_) == 0)) {
    position_ = std::min(end, end_);
    return true;
  }
  for (bool is_writable = false; position_ < std::min(end, end_); position_ += cluster) {
    if (Allocation* other = disk_.allocation_at(position_, position_ + cluster)) {
      waiting_ = true;
      other->waiters.push_back(this);
      return false;
    }
    Qcow2Entry old;
    if (table != nullptr) old = metadata.l2().entry(*table, position_);
    if (layout.kind(old, position_, 0) == UnitKind::kBroken) return broken(position_);
    const Qcow2Entry zero = zeroed(old, position_);
    // A discard of what is not there would only hide the backing file for nothing.
    if (zero == old || (is_discard && old == Qcow2Entry{})) continue;
    if (!is_writable) {
      auto need = metadata.l2().writable_table(position_, table, metadata.freed());
      if (!need.is_nothing()) return wait(need);
      is_writable = true;
      old = metadata.l2().entry(*table, position_);
    }
    if (zero.host() == 0) {
      if (auto need = metadata.drop(old); !need.is_nothing()) return wait(need);
    }
    metadata.l2().set_entry(*table, position_, zero);
  }
  position_ = std::min(position_, end_);
  disk_.commit_if_heavy();
  return true;
}

/// There the bytes themselves become zero, and the data file gives the space back.
bool Qcow2Disk::Operation::zero_in_data_file(CachedTable* table, uint64_t end) {
  Qcow2Metadata& metadata = *disk_.metadata_;
  const uint64_t cluster = disk_.layout_.cluster_size();
  if (Allocation* other = disk_.allocation_at(position_, std::min(end, position_ + cluster))) {
    waiting_ = true;
    other->waiters.push_back(this);
    return false;
  }
  const MappedRun run = metadata.l2().run(table, position_, std::min(end, end_) - position_);
  if (run.kind == UnitKind::kBroken) return broken(position_);
  if (run.kind == UnitKind::kData) {
    const uint64_t size = disk_.data_file_->size();
    const uint64_t length = position_ < size ? std::min(run.length, size - position_) : 0;
    if (length > 0) {
      add_piece();
      Piece& piece = disk_.take_piece(*this, Target::kDataFile, request_->kind, position_, length);
      piece.may_unmap = request_->may_unmap;
      disk_.start_piece(piece);
    }
    position_ += run.length;
    return true;
  }
  const bool shows_backing =
      run.kind == UnitKind::kUnallocated && disk_.backing_bytes_from(position_) > 0;
  if (request_->kind == Kind::kDiscard || !shows_backing) {
    position_ += run.length;
    return true;
  }
  auto need = metadata.l2().writable_table(position_, table, metadata.freed());
  if (!need.is_nothing()) return wait(need);
  Qcow2Entry entry = metadata.l2().entry(*table, position_);
  if (disk_.layout_.extended_l2) {
    const uint64_t unallocated = ~entry.bitmap & kQcow2AllSubclusters;
    entry.bitmap |= unallocated << kQcow2Subclusters;
  } else {
    entry.word |= kQcow2Zero;
  }
  metadata.l2().set_entry(*table, position_, entry);
  position_ = std::min(end_, disk_.layout_.cluster_end(position_));
  return true;
}

}  // namespace crosvm
