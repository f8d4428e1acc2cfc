#include <algorithm>
#include <cerrno>

#include "disk/qcow2/qcow2_operation.h"
#include "disk/qcow2/zeroes.h"

namespace crosvm {
namespace {

using UnitKind = Qcow2UnitKind;

/// What allocations may hold of the disk's old bytes together, unless a single one needs more.
constexpr uint64_t kMostFillBytes = 16 << 20;

}  // namespace

void Qcow2Disk::Allocation::begin(Operation& operation, const Place& place, uint64_t from,
                                  uint64_t to) {
  operation_ = &operation;
  place_ = place;
  from_ = from;
  to_ = to;
  data_.clear();
  operation.take_buffers(to - from, data_);
  ++place_.table->pins;
  disk_.running_allocations_.push_back(this);
  find_fill();
  fill_.resize(0);
  if (bytes_to_fill() == 0) return write();
  disk_.waiting_allocations_.push_back(this);
  disk_.begin_waiting_allocations();
}

uint64_t Qcow2Disk::Allocation::bytes_to_fill() const {
  return (head_zero_ ? 0 : from_ - fill_from_) + (tail_zero_ ? 0 : fill_to_ - to_);
}

void Qcow2Disk::begin_waiting_allocations() {
  while (!waiting_allocations_.empty()) {
    Allocation* next = waiting_allocations_.front();
    if (fill_bytes_ > 0 && fill_bytes_ + next->bytes_to_fill() > kMostFillBytes) return;
    waiting_allocations_.pop_front();
    next->begin_fill();
  }
}

/// What must be written along with the guest's bytes so that whole units are defined: all of a
/// cluster, or of its subclusters unless there are old ones to be moved.
void Qcow2Disk::Allocation::find_fill() {
  const Qcow2Layout& layout = disk_.layout_;
  const L2Map& l2 = disk_.metadata_->l2();
  const uint64_t last = layout.cluster_start(to_ - 1);
  auto moves_old = [&](uint64_t guest) {
    const Qcow2Entry entry = l2.entry(*place_.table, guest);
    return place_.is_new && (entry.is_compressed() || entry.host() != 0);
  };
  // Bytes of a subcluster that has its place stay as they are: others may be writing them now.
  auto is_in_place = [&](uint64_t guest) {
    return !place_.is_new && l2.run(place_.table, guest, 1).kind == UnitKind::kData;
  };
  const bool whole_first = !layout.extended_l2 || moves_old(place_.guest);
  const bool whole_last = !layout.extended_l2 || moves_old(last);
  const uint64_t unit_start = from_ & ~(layout.unit_size() - 1);
  const uint64_t unit_end = ((to_ - 1) | (layout.unit_size() - 1)) + 1;
  fill_from_ = whole_first ? place_.guest : is_in_place(from_) ? from_ : unit_start;
  fill_to_ = whole_last ? last + layout.cluster_size() : is_in_place(to_ - 1) ? to_ : unit_end;
  // A data file is as long as the disk.
  if (layout.external_data) fill_to_ = std::max(to_, std::min(fill_to_, disk_.size_));
  head_zero_ = is_zero(fill_from_, from_);
  tail_zero_ = is_zero(to_, fill_to_);
  if (place_.is_fresh && head_zero_) fill_from_ = from_;
  if (place_.is_fresh && tail_zero_) fill_to_ = to_;
}

bool Qcow2Disk::Allocation::is_zero(uint64_t from, uint64_t to) const {
  while (from < to) {
    const MappedRun run = disk_.metadata_->l2().run(place_.table, from, to - from);
    const bool zero = run.kind == UnitKind::kZero ||
                      (run.kind == UnitKind::kUnallocated && disk_.backing_bytes_from(from) == 0);
    if (!zero) return false;
    from += run.length;
  }
  return true;
}

void Qcow2Disk::Allocation::begin_fill() {
  const uint64_t head = head_zero_ ? 0 : from_ - fill_from_;
  const uint64_t tail = tail_zero_ ? 0 : fill_to_ - to_;
  fill_.resize(head + tail);
  disk_.fill_bytes_ += fill_.size();
  tail_next_ = head > 0 && tail > 0;
  head > 0 ? read_fill(fill_from_, from_, 0) : read_fill(to_, fill_to_, 0);
}

/// Reads the disk's own bytes as they are now; nobody else changes these clusters meanwhile.
void Qcow2Disk::Allocation::read_fill(uint64_t from, uint64_t to, size_t at) {
  kind = Kind::kRead;
  offset = from;
  length = to - from;
  buffers.assign(1, GuestSlice::over(std::span(fill_).subspan(at, to - from)));
  disk_.operations_.take(disk_).begin(*this, 0);
}

void Qcow2Disk::Allocation::disk_done(int error) {
  if (error != 0) return end(error);
  if (std::exchange(tail_next_, false)) return read_fill(to_, fill_to_, from_ - fill_from_);
  write();
}

void Qcow2Disk::Allocation::append_fill(std::vector<GuestSlice>& buffers, uint64_t from,
                                        uint64_t to, bool zero, size_t at) {
  if (from == to) return;
  if (zero) return append_zeroes(buffers, to - from);
  buffers.push_back(GuestSlice::over(std::span(fill_).subspan(at, to - from)));
}

void Qcow2Disk::Allocation::write() {
  Piece& piece = disk_.take_piece(*this, disk_.data_target(), Kind::kWrite,
                                  place_.host + (fill_from_ - place_.guest), fill_to_ - fill_from_);
  append_fill(piece.buffers, fill_from_, from_, head_zero_, 0);
  piece.buffers.insert(piece.buffers.end(), data_.begin(), data_.end());
  append_fill(piece.buffers, to_, fill_to_, tail_zero_,
              head_zero_ ? 0 : static_cast<size_t>(from_ - fill_from_));
  disk_.start_piece(piece);
}

void Qcow2Disk::Allocation::piece_done(int error) { end(error != 0 ? error : set_entries()); }

int Qcow2Disk::Allocation::set_entries() {
  Qcow2Metadata& metadata = *disk_.metadata_;
  const Qcow2Layout& layout = disk_.layout_;
  const uint64_t cluster = layout.cluster_size();
  // What is fresh and was not written is defined, too.
  const uint64_t defined_from = fill_from_ & ~(layout.unit_size() - 1);
  const uint64_t defined_to = ((fill_to_ - 1) | (layout.unit_size() - 1)) + 1;
  for (uint64_t i = 0; i < place_.count; ++i) {
    const uint64_t guest = place_.guest + i * cluster;
    Qcow2Entry entry = metadata.l2().entry(*place_.table, guest);
    if (place_.is_new) {
      if (auto need = metadata.drop(entry); !need.is_nothing()) return need.error;
      if (entry.is_compressed()) entry.bitmap = 0;
    }
    entry.word = (place_.host + i * cluster) | kQcow2Copied;
    if (layout.extended_l2) {
      const uint64_t from = std::max(defined_from, guest) - guest;
      const uint64_t to = std::min(defined_to, guest + cluster) - guest;
      const uint64_t below_to = (uint64_t{1} << (to >> layout.unit_bits())) - 1;
      const uint64_t units = below_to & ~((uint64_t{1} << (from >> layout.unit_bits())) - 1);
      entry.bitmap = (entry.bitmap | units) & ~(units << kQcow2Subclusters);
    }
    metadata.l2().set_entry(*place_.table, guest, entry);
  }
  return 0;
}

void Qcow2Disk::Allocation::end(int error) {
  const Qcow2Layout& layout = disk_.layout_;
  if (error != 0 && place_.is_new) {
    disk_.metadata_->freed().push_back(
        {.first = place_.host >> layout.cluster_bits, .count = place_.count});
  }
  --place_.table->pins;
  std::erase(disk_.running_allocations_, this);
  disk_.fill_bytes_ -= fill_.size();
  if (fill_.capacity() > (256 << 10)) fill_ = {};
  fill_.clear();
  std::vector<Waiter*> woken = std::exchange(waiters, {});
  Operation& operation = *operation_;
  disk_.allocations_.give_back(*this);
  disk_.begin_waiting_allocations();
  operation.piece_done(error);
  wake(woken, 0);
}

}  // namespace crosvm
