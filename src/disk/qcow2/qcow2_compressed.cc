#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/format.h"
#include "disk/qcow2/decompress.h"
#include "disk/qcow2/qcow2_operation.h"

namespace crosvm {
namespace {

constexpr size_t kMostReads = 4;  // at once: each holds up to two clusters

}  // namespace

void Qcow2Disk::CompressedRead::begin(Operation& operation, const Qcow2Entry& entry,
                                      uint64_t offset, uint64_t length) {
  operation_ = &operation;
  entry_ = entry;
  offset_ = offset;
  length_ = length;
  epoch_ = disk_.hold_clusters();
  buffers_.clear();
  operation.take_buffers(length, buffers_);
  if (disk_.running_compressed_ == kMostReads) return disk_.waiting_compressed_.push_back(this);
  ++disk_.running_compressed_;
  begin_read();
}

/// One that finds its cluster unpacked ends at once, and the next begins here, not further in.
void Qcow2Disk::begin_waiting_compressed() {
  if (std::exchange(beginning_compressed_, true)) return;
  while (!waiting_compressed_.empty() && running_compressed_ < kMostReads) {
    CompressedRead* next = waiting_compressed_.front();
    waiting_compressed_.pop_front();
    ++running_compressed_;
    next->begin_read();
  }
  beginning_compressed_ = false;
}

void Qcow2Disk::CompressedRead::begin_read() {
  if (disk_.unpacked_entry_ == entry_) {
    copy();
    return end(0);
  }
  const Qcow2CompressedPlace place = disk_.layout_.compressed_place(entry_);
  const uint64_t size = disk_.file_->size();
  // A writer need not fill the last sector.
  const uint64_t length = place.offset < size ? std::min(place.length, size - place.offset) : 0;
  if (length == 0) return piece_done(0);
  packed_.resize(length);
  Piece& piece =
      disk_.take_piece(*this, Target::kFile, DiskRequest::Kind::kRead, place.offset, length);
  piece.buffers.push_back(GuestSlice::over(packed_));
  disk_.start_piece(piece);
}

void Qcow2Disk::CompressedRead::piece_done(int error) {
  if (error != 0) return end(error);
  disk_.unpacked_entry_ = {};
  disk_.unpacked_.resize(disk_.layout_.cluster_size());
  if (!decompress_cluster(disk_.metadata_->header().compression, packed_, disk_.unpacked_)) {
    return end(disk_.metadata_->damage().report(
        format_text("the compressed cluster at {:#x} cannot be unpacked",
                    disk_.layout_.compressed_place(entry_).offset)));
  }
  disk_.unpacked_entry_ = entry_;
  copy();
  end(0);
}

void Qcow2Disk::CompressedRead::copy() {
  auto from = std::span<const std::byte>(disk_.unpacked_).subspan(offset_, length_);
  for (const GuestSlice& buffer : buffers_) {
    (void)buffer.write_bytes(0, from.first(buffer.size()));
    from = from.subspan(buffer.size());
  }
}

void Qcow2Disk::CompressedRead::end(int error) {
  Operation& operation = *operation_;
  packed_ = {};
  disk_.release_clusters(epoch_);
  disk_.compressed_reads_.give_back(*this);
  --disk_.running_compressed_;
  disk_.begin_waiting_compressed();
  operation.piece_done(error);
}

}  // namespace crosvm
