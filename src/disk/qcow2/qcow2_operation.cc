#include "disk/qcow2/qcow2_operation.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "base/format.h"
#include "disk/qcow2/qcow2_commit.h"
#include "disk/qcow2/zeroes.h"

namespace crosvm {

using Kind = DiskRequest::Kind;
using UnitKind = Qcow2UnitKind;

void Qcow2Disk::Operation::begin(DiskRequest& request, int refusal) {
  request_ = &request;
  position_ = request.offset;
  end_ = request.kind == Kind::kFlush ? position_ : position_ + request.length;
  buffer_ = 0;
  taken_ = 0;
  pieces_ = 0;
  error_ = refusal;
  waiting_ = held_back_ = flushed_ = false;
  if (request.kind == Kind::kFlush) flush_ = disk_.committer_->flush_errors().begin();
  run();
}

void Qcow2Disk::Operation::go_on(int error) {
  waiting_ = false;
  if (error != 0) error_ = error;
  run();
}

void Qcow2Disk::Operation::piece_done(int error) {
  if (error != 0) error_ = error;
  if (error != 0 && request_->kind == Kind::kFlush) {
    disk_.committer_->flush_errors().failed(error);
  }
  --pieces_;
  if ((pieces_ == 0 || held_back_) && !waiting_) run();
}

/// While nothing is waited for, goes on to the end; what has begun ends first, even after an error.
void Qcow2Disk::Operation::run() {
  held_back_ = false;
  add_piece();  // so that nothing ends it meanwhile
  const bool is_flush = request_->kind == Kind::kFlush;
  while (error_ == 0 && (position_ < end_ || (is_flush && !flushed_))) {
    held_back_ = pieces_ > kMostPieces;
    if (held_back_ || !step()) break;
  }
  --pieces_;
  if (pieces_ > 0 || waiting_) return;
  if (!is_flush) return disk_.ended(*this, error_);
  const std::optional<int> told = disk_.committer_->flush_errors().end(
      flush_, error_, [this](int error) { disk_.ended(*this, error); });
  if (told) disk_.ended(*this, *told);
}

/// False when something has to be waited for.
bool Qcow2Disk::Operation::step() {
  switch (request_->kind) {
    case Kind::kRead:
      return read_step();
    case Kind::kWrite:
      return write_step();
    case Kind::kFlush:
      return flush_step();
    case Kind::kExtent:
      return extent_step();
    default:
      return zero_step();
  }
}

bool Qcow2Disk::Operation::fail_with(int error) {
  error_ = error;
  return true;
}

bool Qcow2Disk::Operation::wait(const Qcow2Need& need) {
  if (need.kind == Qcow2Need::Kind::kFailed) return fail_with(need.error);
  waiting_ = true;
  disk_.wait_for(need, *this);
  return false;
}

bool Qcow2Disk::Operation::wait_for_commit() {
  waiting_ = true;
  disk_.wait_for_commit(*this);
  return false;
}

bool Qcow2Disk::Operation::broken(uint64_t guest) {
  return fail_with(
      disk_.metadata_->damage().report(format_text("the L2 entry for {:#x} is broken", guest)));
}

/// Whether the file has not a byte of its last cluster, as one that was copied in part. The last
/// cluster of the file may be short.
bool Qcow2Disk::Operation::is_lost(const MappedRun& run) const {
  if (run.kind != UnitKind::kData || disk_.layout_.external_data) return false;
  return disk_.layout_.cluster_start(run.host + run.length - 1) >= disk_.file_->size();
}

bool Qcow2Disk::Operation::lost(const MappedRun& run) {
  const uint64_t guest = disk_.layout_.cluster_start(position_ + run.length - 1);
  return fail_with(disk_.metadata_->damage().report(
      format_text("the cluster for {:#x} lies outside the file", guest)));
}

void Qcow2Disk::Operation::take_buffers(uint64_t length, std::vector<GuestSlice>& to) {
  if (request_->kind != Kind::kRead && request_->kind != Kind::kWrite) {
    return append_zeroes(to, length);
  }
  const std::vector<GuestSlice>& from = request_->buffers;
  if (length == request_->length) {
    to.assign(from.begin(), from.end());
    return;
  }
  while (length > 0) {
    CHECK(buffer_ < from.size());
    const uint64_t piece = std::min<uint64_t>(length, from[buffer_].size() - taken_);
    if (piece > 0) to.push_back(*from[buffer_].sub(taken_, piece));
    taken_ += piece;
    length -= piece;
    if (taken_ == from[buffer_].size()) {
      ++buffer_;
      taken_ = 0;
    }
  }
}

// ---- reading

bool Qcow2Disk::Operation::read_step() {
  CachedTable* table;
  L2Map& l2 = disk_.metadata_->l2();
  if (auto need = l2.find_table(position_, table); !need.is_nothing()) return wait(need);
  const MappedRun run = l2.run(table, position_, end_ - position_);
  if (run.kind == UnitKind::kBroken) return broken(position_);
  if (is_lost(run)) return lost(run);
  read_run(run);
  position_ += run.length;
  return true;
}

void Qcow2Disk::Operation::read_run(const MappedRun& run) {
  switch (run.kind) {
    case UnitKind::kData:
      return read_below(disk_.data_target(), run.host, run.length);
    case UnitKind::kUnallocated:
      return read_below(Target::kBacking, position_, run.length);
    case UnitKind::kCompressed: {
      add_piece();
      CompressedRead& read = disk_.compressed_reads_.take(disk_);
      return read.begin(*this, run.entry, disk_.layout_.in_cluster(position_), run.length);
    }
    default:
      return skip_as_zeroes(run.length);
  }
}

/// What lies past the end there reads as zeroes.
void Qcow2Disk::Operation::read_below(Target target, uint64_t offset, uint64_t length) {
  const uint64_t size =
      target == Target::kBacking && !disk_.backing_ ? 0 : disk_.disk_of(target).size();
  const uint64_t there = offset < size ? std::min(length, size - offset) : 0;
  if (there > 0) {
    add_piece();
    Piece& piece = disk_.take_piece(*this, target, Kind::kRead, offset, there);
    take_buffers(there, piece.buffers);
    disk_.start_piece(piece);
  }
  if (there < length) skip_as_zeroes(length - there);
}

void Qcow2Disk::Operation::skip_as_zeroes(uint64_t length) {
  std::vector<GuestSlice> buffers;
  take_buffers(length, buffers);
  fill_with_zeroes(buffers);
}

// ---- writing

bool Qcow2Disk::Operation::write_step() {
  Qcow2Metadata& metadata = *disk_.metadata_;
  if (disk_.read_only_) return fail_with(EIO);  // since it was found damaged
  if (metadata.is_full()) return wait_for_commit();
  CachedTable* table;
  if (auto need = metadata.l2().find_table(position_, table); !need.is_nothing()) {
    return wait(need);
  }
  const MappedRun run = metadata.l2().run(table, position_, end_ - position_);
  if (run.kind == UnitKind::kBroken) return broken(position_);
  if (run.kind == UnitKind::kData && has_own(run.entry)) return write_in_place(run);
  return allocate_step();
}

/// A table of a snapshot's does not say which clusters are the disk's own.
bool Qcow2Disk::Operation::has_own(const Qcow2Entry& entry) const {
  return entry.is_copied() && disk_.metadata_->l2().owns_table(position_);
}

bool Qcow2Disk::Operation::write_in_place(const MappedRun& run) {
  if (is_lost(run)) return lost(run);
  const Qcow2Layout& layout = disk_.layout_;
  const Target target = disk_.data_target();
  if (!layout.external_data) {
    const uint64_t first = run.host >> layout.cluster_bits;
    const uint64_t count = layout.clusters(run.host + run.length) - first;
    if (!disk_.metadata_->map().is_all(first, count, ClusterUse::kData)) return broken(position_);
  }
  if (run.host + run.length > disk_.disk_of(target).size()) {
    waiting_ = true;
    disk_.wait_for_size(target, run.host + run.length, *this);
    return false;
  }
  add_piece();
  Piece& piece = disk_.take_piece(*this, target, Kind::kWrite, run.host, run.length);
  take_buffers(run.length, piece.buffers);
  position_ += run.length;
  disk_.start_piece(piece);
  return true;
}

/// Neither can it be written in place, nor has it a cluster of its own that is to be filled.
bool Qcow2Disk::Operation::needs_new_cluster(const Qcow2Entry& entry, uint64_t guest) const {
  if (disk_.layout_.external_data) return false;
  (void)guest;
  return entry.is_compressed() || entry.host() == 0 || !entry.is_copied();
}

/// How many clusters from `first` on are to get a new place, together.
uint64_t Qcow2Disk::Operation::count_to_allocate(const CachedTable* table, uint64_t first,
                                                 uint64_t end) const {
  const uint64_t cluster = disk_.layout_.cluster_size();
  const L2Map& l2 = disk_.metadata_->l2();
  for (const Allocation* running : disk_.running_allocations_) {
    const uint64_t guest = running->place().guest;
    if (guest >= first) end = std::min(end, guest);
  }
  uint64_t at = first;
  do {
    if (table != nullptr && !needs_new_cluster(l2.entry(*table, at), at)) break;
    at += cluster;
  } while (at < end && l2.bytes_to_table_end(at) != disk_.layout_.l2_coverage());
  return (at - first) >> disk_.layout_.cluster_bits;
}

bool Qcow2Disk::Operation::allocate_step() {
  Qcow2Metadata& metadata = *disk_.metadata_;
  const Qcow2Layout& layout = disk_.layout_;
  const uint64_t first = layout.cluster_start(position_);
  if (Allocation* other = disk_.allocation_at(first, first + layout.cluster_size())) {
    waiting_ = true;
    other->waiters.push_back(this);
    return false;
  }
  Allocation::Place place{.guest = first, .count = 1};
  auto need = metadata.l2().writable_table(position_, place.table, metadata.freed());
  if (!need.is_nothing()) return wait(need);
  const Qcow2Entry entry = metadata.l2().entry(*place.table, first);  // of a table of its own now
  if (needs_new_cluster(entry, first)) {
    place.count = count_to_allocate(place.table, first, end_);
    place.is_new = true;
    Refcounts::Allocated allocated;
    need = metadata.refcounts().allocate(place.count, ClusterUse::kData, allocated);
    if (!need.is_nothing()) return wait(need);
    place.count = allocated.run.count;
    place.host = allocated.run.first << layout.cluster_bits;
    place.is_fresh = allocated.is_fresh;
  } else {
    place.host = layout.external_data ? first : entry.host();
    const bool may = layout.external_data ||
                     metadata.map().use(place.host >> layout.cluster_bits) == ClusterUse::kData;
    if (!may) return broken(position_);
    const uint64_t end = layout.external_data ? std::min(first + layout.cluster_size(), disk_.size_)
                                              : place.host + layout.cluster_size();
    if (end > disk_.disk_of(disk_.data_target()).size()) {
      waiting_ = true;
      disk_.wait_for_size(disk_.data_target(), end, *this);
      return false;
    }
  }
  const uint64_t from = position_;
  position_ = std::min(end_, first + place.count * layout.cluster_size());
  add_piece();
  disk_.allocations_.take(disk_).begin(*this, place, from, position_);
  disk_.commit_if_heavy();
  return true;
}

// ---- flushing and asking

bool Qcow2Disk::Operation::flush_step() {
  if (disk_.metadata_->damage().found()) return fail_with(EIO);
  const bool idle = !disk_.committer_->is_running() && !disk_.metadata_->needs_commit();
  flushed_ = true;
  if (!idle && !disk_.opened_read_only_) return wait_for_commit();
  for (Target target : {Target::kFile, Target::kDataFile}) {
    if (target == Target::kDataFile && !disk_.data_file_) continue;
    add_piece();
    disk_.start_piece(disk_.take_piece(*this, target, Kind::kFlush, 0, 0));
  }
  return true;
}

bool Qcow2Disk::Operation::extent_step() {
  CachedTable* table;
  L2Map& l2 = disk_.metadata_->l2();
  if (auto need = l2.find_table(position_, table); !need.is_nothing()) return wait(need);
  const MappedRun run = l2.run(table, position_, end_ - position_);
  if (run.kind == UnitKind::kBroken) return broken(position_);
  request_->extent = {.length = run.length, .is_zero = run.kind == UnitKind::kZero};
  const uint64_t below = disk_.backing_bytes_from(position_);
  const uint64_t position = std::exchange(position_, end_);
  if (run.kind != UnitKind::kUnallocated) return true;
  request_->extent.is_present = false;
  if (below == 0) {
    request_->extent.is_zero = true;
    return true;
  }
  // The backing file says whether they are zeroes.
  request_->extent.length = std::min(run.length, below);
  add_piece();
  disk_.start_piece(
      disk_.take_piece(*this, Target::kBacking, Kind::kExtent, position, request_->extent.length));
  return true;
}

void Qcow2Disk::Operation::take_extent(const DiskRequest::Extent& below) {
  DiskRequest::Extent& extent = request_->extent;
  extent.is_zero = below.is_zero;
  extent.length = std::min(extent.length, below.length);
}

}  // namespace crosvm
