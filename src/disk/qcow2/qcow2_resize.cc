#include "disk/qcow2/qcow2_resize.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "base/format.h"
#include "disk/qcow2/qcow2_commit.h"

namespace crosvm {

using Kind = DiskRequest::Kind;

namespace {

constexpr uint64_t kSector = 512;

}  // namespace

void Qcow2Disk::resize(uint64_t bytes, ResizeDone done) {
  auto refuse = [&done](std::errc code, std::string why) {
    done(fail(Error(code, std::move(why))));
  };
  if (opened_read_only_) {
    return refuse(std::errc::read_only_file_system, "it is open for reading alone");
  }
  if (read_only_) {
    return refuse(std::errc::io_error,
                  "it was found to be damaged, and is not written to any more; run crosvm disk "
                  "check on it when the VM has ended");
  }
  if (bytes % kSector != 0 || bytes > INT64_MAX) {
    return refuse(
        std::errc::invalid_argument,
        format_text("{} bytes are no whole number of sectors, or too many; give a multiple "
                    "of 512",
                    bytes));
  }
  if (metadata_->header().snapshots > 0 && layout_.version < 3) {
    return refuse(std::errc::not_supported,
                  "it has snapshots, which do not say in version 2 of qcow2 how large their disk "
                  "was; delete them, or make it version 3: qemu-img amend -o compat=1.1");
  }
  if (resize_ && resize_->is_running()) {
    return refuse(std::errc::device_or_resource_busy, "its size is being changed already");
  }
  resize_ = std::make_unique<Resize>(*this, bytes, std::move(done));
  resize_->begin();
  pump();
}

void Qcow2Disk::Resize::begin() { bytes_ > before_ ? grow_l1() : commit(); }

void Qcow2Disk::Resize::go_on(int error) {
  switch (step_) {
    case Step::kL1:
      return error != 0 ? fail_with(error) : grow_l1();
    case Step::kDataFile:
      return error != 0 ? fail_with(error) : zero();
    case Step::kMap:
      return error != 0 ? fail_with(error) : map_raw_data();
    case Step::kCommit:
      if (error != 0) return fail_with(error);
      return bytes_ > before_ ? end() : drop();
    case Step::kUndo:
      return error != 0 ? last_commit() : drop();
    case Step::kDrop:
      // The disk has its size: what cannot be dropped stays, and is not seen.
      return error != 0 ? last_commit() : drop();
    default:
      return end();
  }
}

void Qcow2Disk::Resize::grow_l1() {
  Qcow2Metadata& metadata = *disk_.metadata_;
  auto need = metadata.l2().grow_l1(disk_.layout_.l1_entries(bytes_), metadata.freed());
  if (need.kind == Qcow2Need::Kind::kFailed) return fail_with(need.error);
  if (!need.is_nothing()) return disk_.wait_for(need, *this);
  step_ = Step::kDataFile;
  disk_.data_file_ ? zero_data_file() : zero();
}

/// It may be longer than the disk, since that was longer.
void Qcow2Disk::Resize::zero_data_file() {
  const uint64_t end = std::min(bytes_, disk_.data_file_->size());
  if (end <= before_) return grow_data_file();
  Piece& piece =
      disk_.take_piece(*this, Target::kDataFile, Kind::kWriteZeroes, before_, end - before_);
  piece.may_unmap = true;
  disk_.start_piece(piece);
}

void Qcow2Disk::Resize::piece_done(int error) { error != 0 ? fail_with(error) : grow_data_file(); }

void Qcow2Disk::Resize::grow_data_file() {
  if (disk_.data_file_->size() >= bytes_) return zero();
  disk_.wait_for_size(Target::kDataFile, bytes_, *this);
}

/// What comes into view becomes zero: the end of the last cluster, a longer backing file, what a
/// cut has left there when the disk became shorter.
void Qcow2Disk::Resize::zero() {
  step_ = Step::kZero;
  disk_.size_ = bytes_;
  kind = Kind::kWriteZeroes;
  may_unmap = true;
  offset = before_;
  length = bytes_ - before_;
  disk_.operations_.take(disk_).begin(*this, 0);
}

void Qcow2Disk::Resize::disk_done(int error) {
  if (error != 0) return fail_with(error);
  position_ = disk_.layout_.cluster_start(before_);
  map_raw_data();
}

/// Who reads a raw data file by itself sees every write at once. So must who reads the disk,
/// whatever becomes of the tables: there is no cluster that waits to be mapped.
void Qcow2Disk::Resize::map_raw_data() {
  step_ = Step::kMap;
  Qcow2Metadata& metadata = *disk_.metadata_;
  if (!metadata.header().has_raw_data()) return commit();
  const uint64_t cluster = disk_.layout_.cluster_size();
  while (position_ < bytes_) {
    if (metadata.is_full()) return disk_.wait_for_commit(*this);
    CachedTable* table;
    auto need = metadata.l2().writable_table(position_, table, metadata.freed());
    if (need.kind == Qcow2Need::Kind::kFailed) return fail_with(need.error);
    if (!need.is_nothing()) return disk_.wait_for(need, *this);
    const uint64_t end = std::min(bytes_, position_ + metadata.l2().bytes_to_table_end(position_));
    for (; position_ < end; position_ += cluster) {
      Qcow2Entry entry = metadata.l2().entry(*table, position_);
      if (entry != Qcow2Entry{}) continue;
      entry.word = position_ | kQcow2Copied;
      if (disk_.layout_.extended_l2) entry.bitmap = kQcow2AllSubclusters;
      metadata.l2().set_entry(*table, position_, entry);
    }
    disk_.commit_if_heavy();
  }
  commit();
}

void Qcow2Disk::Resize::commit() {
  step_ = Step::kCommit;
  disk_.size_ = bytes_;
  disk_.metadata_->set_size(bytes_);
  position_ = disk_.layout_.cluster_start(bytes_ + disk_.layout_.cluster_size() - 1);
  disk_.wait_for_commit(*this);
}

/// What went out of view gives its space back; only now, as a cut would have shown the backing file
/// there as long as the disk had its former size.
void Qcow2Disk::Resize::drop() {
  step_ = Step::kDrop;
  Qcow2Metadata& metadata = *disk_.metadata_;
  while (position_ < std::max(before_, bytes_)) {
    if (metadata.is_full()) return disk_.wait_for_commit(*this);
    auto need = drop_clusters();
    if (need.kind == Qcow2Need::Kind::kFailed) return last_commit();
    if (!need.is_nothing()) return disk_.wait_for(need, *this);
    disk_.commit_if_heavy();
  }
  dropped();
}

void Qcow2Disk::Resize::dropped() {
  Qcow2Metadata& metadata = *disk_.metadata_;
  metadata.l2().drop_tables_from(disk_.layout_.l1_entries(disk_.size_), metadata.freed());
  if (!disk_.data_file_ || error_ != 0) return last_commit();
  step_ = Step::kLast;
  disk_.data_file_->resize(bytes_, [this](const Result<void>&) { disk_.wait_for_commit(*this); });
}

/// The L1 table that was made for the longer disk gives back what it need not have.
void Qcow2Disk::Resize::last_commit() {
  step_ = Step::kLast;
  Qcow2Metadata& metadata = *disk_.metadata_;
  if (error_ != 0) metadata.l2().shorten_l1(l1_before_, metadata.freed());
  disk_.wait_for_commit(*this);
}

/// Those of one table.
Qcow2Need Qcow2Disk::Resize::drop_clusters() {
  Qcow2Metadata& metadata = *disk_.metadata_;
  CachedTable* table;
  if (auto need = metadata.l2().find_table(position_, table); !need.is_nothing()) return need;
  const uint64_t end = position_ + metadata.l2().bytes_to_table_end(position_);
  if (table != nullptr) {
    auto need = metadata.l2().writable_table(position_, table, metadata.freed());
    if (!need.is_nothing()) return need;
    for (; position_ < end; position_ += disk_.layout_.cluster_size()) {
      const Qcow2Entry old = metadata.l2().entry(*table, position_);
      if (old == Qcow2Entry{}) continue;
      if (need = metadata.drop(old); !need.is_nothing()) return need;
      metadata.l2().set_entry(*table, position_, {});
    }
  }
  position_ = end;
  return {};
}

/// The disk has its former size. Perhaps the file says otherwise already: nothing may come out of
/// view before it has been told.
void Qcow2Disk::Resize::undo() {
  const bool may_be_told = step_ == Step::kCommit;
  step_ = Step::kUndo;
  position_ = disk_.layout_.cluster_start(before_ + disk_.layout_.cluster_size() - 1);
  may_be_told ? disk_.wait_for_commit(*this) : drop();
}

void Qcow2Disk::Resize::fail_with(int error) {
  error_ = error;
  disk_.size_ = before_;
  disk_.metadata_->set_size(before_);
  const bool has_grown = bytes_ > before_ && step_ != Step::kL1;
  has_grown ? undo() : end();
}

void Qcow2Disk::Resize::end() {
  const auto done = std::exchange(done_, nullptr);
  if (error_ == 0) return done({});
  done(fail(Error::from_errno("changing its size",
                              format_text("from {} to {} bytes", before_, bytes_), error_)));
}

}  // namespace crosvm
