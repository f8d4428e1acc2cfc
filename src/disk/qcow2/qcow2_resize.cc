#include "disk/qcow2/qcow2_resize.h"

#include <algorithm>
#include <cerrno>

#include "disk/qcow2/qcow2_commit.h"

namespace crosvm {
namespace {

constexpr uint64_t kSector = 512;

}  // namespace

void Qcow2Disk::resize(uint64_t bytes, std::function<void(int error)> done) {
  if (opened_read_only_) return done(EROFS);
  if (read_only_) return done(EIO);
  if (bytes % kSector != 0 || bytes > INT64_MAX) return done(EINVAL);
  // Before version 3 a snapshot does not say how large its disk was.
  if (metadata_->header().snapshots > 0 && layout_.version < 3) return done(ENOTSUP);
  if (resize_ && resize_->is_running()) return done(EBUSY);
  resize_ = std::make_unique<Resize>(*this, bytes, std::move(done));
  resize_->begin();
  pump();
}

void Qcow2Disk::Resize::begin() { bytes_ > before_ ? grow_l1() : zero(); }

void Qcow2Disk::Resize::go_on(int error) {
  if (error != 0) return end(error);
  switch (step_) {
    case Step::kL1:
      return grow_l1();
    case Step::kDataFile:
    case Step::kMap:
      return map_raw_data();
    default:
      return end(0);
  }
}

void Qcow2Disk::Resize::grow_l1() {
  Qcow2Metadata& metadata = *disk_.metadata_;
  auto need = metadata.l2().grow_l1(disk_.layout_.l1_entries(bytes_), metadata.freed());
  if (need.kind == Qcow2Need::Kind::kFailed) return end(need.error);
  if (!need.is_nothing()) return disk_.wait_for(need, *this);
  step_ = Step::kDataFile;
  mapped_to_ = disk_.layout_.cluster_start(before_);
  if (disk_.data_file_) return disk_.wait_for_size(Target::kDataFile, bytes_, *this);
  zero();
}

/// Who reads a raw data file by itself sees every write at once. So must who reads the disk,
/// whatever becomes of the tables: there is no cluster that waits to be mapped.
void Qcow2Disk::Resize::map_raw_data() {
  step_ = Step::kMap;
  Qcow2Metadata& metadata = *disk_.metadata_;
  if (!metadata.header().has_raw_data()) return zero();
  const uint64_t cluster = disk_.layout_.cluster_size();
  while (mapped_to_ < bytes_) {
    if (metadata.is_full()) return disk_.wait_for_commit(*this);
    CachedTable* table;
    auto need = metadata.l2().writable_table(mapped_to_, table, metadata.freed());
    if (need.kind == Qcow2Need::Kind::kFailed) return end(need.error);
    if (!need.is_nothing()) return disk_.wait_for(need, *this);
    const uint64_t end =
        std::min(bytes_, mapped_to_ + metadata.l2().bytes_to_table_end(mapped_to_));
    for (; mapped_to_ < end; mapped_to_ += cluster) {
      Qcow2Entry entry = metadata.l2().entry(*table, mapped_to_);
      if (entry != Qcow2Entry{}) continue;
      entry.word = mapped_to_ | kQcow2Copied;
      if (disk_.layout_.extended_l2) entry.bitmap = kQcow2AllSubclusters;
      metadata.l2().set_entry(*table, mapped_to_, entry);
    }
    disk_.commit_if_heavy();
  }
  zero();
}

/// What comes into view, such as the end of the last cluster or a longer backing file, becomes
/// zero; what goes out of view is dropped.
void Qcow2Disk::Resize::zero() {
  step_ = Step::kZero;
  const Qcow2Layout& layout = disk_.layout_;
  const uint64_t low = std::min(bytes_, before_);
  const uint64_t cluster_end = layout.in_cluster(low) == 0 ? low : layout.cluster_end(low);
  kind = Kind::kWriteZeroes;
  may_unmap = true;
  uint64_t to = before_;
  offset = cluster_end;
  if (bytes_ > before_) {
    disk_.size_ = bytes_;
    offset = before_;
    const uint64_t backing = disk_.backing_ ? disk_.backing_->size() : 0;
    to = std::min(bytes_, std::max(cluster_end, backing));
  }
  length = offset < to ? to - offset : 0;
  if (length == 0) return commit();
  disk_.operations_.take(disk_).begin(*this, 0);
}

void Qcow2Disk::Resize::disk_done(int error) {
  if (error != 0) {
    disk_.size_ = before_;
    return end(error);
  }
  commit();
}

void Qcow2Disk::Resize::commit() {
  step_ = Step::kCommit;
  Qcow2Metadata& metadata = *disk_.metadata_;
  if (bytes_ < before_) {
    metadata.l2().drop_tables_from(disk_.layout_.l1_entries(bytes_), metadata.freed());
  }
  disk_.size_ = bytes_;
  metadata.set_size(bytes_);
  disk_.wait_for_commit(*this);
}

void Qcow2Disk::Resize::end(int error) { std::exchange(done_, nullptr)(error); }

}  // namespace crosvm
