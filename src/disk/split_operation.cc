#include "disk/split_operation.h"

#include <algorithm>
#include <cerrno>

#include "disk/buffer_slices.h"

namespace crosvm {

using Kind = DiskRequest::Kind;

void SplitDisk::Part::disk_done(int error) { operation->part_done(*this, error); }

void SplitDisk::Operation::assign(DiskRequest& request) {
  request_ = &request;
  done_ = 0;
  error_ = 0;
}

SplitDisk::Part* SplitDisk::Operation::free_part() {
  if (running_ == kParts) return nullptr;
  return &*std::ranges::find_if(parts_, [](const Part& part) { return part.operation == nullptr; });
}

void SplitDisk::Operation::start(Part& part, size_t below) {
  part.operation = this;
  part.below = below;
  ++running_;
  disk_.start_below(below, part);
}

bool SplitDisk::Operation::go_on() {
  if (request_->kind == Kind::kFlush) return go_on_flushing();
  while (error_ == 0 && done_ < request_->length) {
    Part* part = free_part();
    if (part == nullptr) return false;
    do_piece(*part);
  }
  return running_ == 0;
}

/// Does the part of the request that lies in one piece, or starts it.
void SplitDisk::Operation::do_piece(Part& part) {
  const uint64_t at = request_->offset + done_;
  const Piece piece = disk_.piece_at(at);
  const uint64_t length = std::min(piece.length, request_->length - done_);
  if (request_->kind == Kind::kExtent) return find_extent(part, piece, length);
  const uint64_t before = std::exchange(done_, done_ + length);
  if (request_->kind != Kind::kRead && !piece.writable) {
    error_ = EROFS;
    return;
  }
  if (piece.below == Piece::kPattern) {
    return fill_buffers(request_->buffers, before, length, piece.pattern, piece.offset);
  }
  part.kind = request_->kind;
  part.may_unmap = request_->may_unmap;
  part.offset = piece.offset;
  part.length = length;
  part.buffers.clear();
  if (part.kind == Kind::kRead || part.kind == Kind::kWrite) {
    slice_buffers(request_->buffers, before, length, part.buffers);
  }
  start(part, piece.below);
}

/// The answer is about the first piece alone.
void SplitDisk::Operation::find_extent(Part& part, const Piece& piece, uint64_t length) {
  done_ = request_->length;
  if (piece.below == Piece::kPattern) {
    request_->extent = {.length = length, .is_zero = piece.pattern == 0};
    return;
  }
  part.kind = Kind::kExtent;
  part.offset = piece.offset;
  part.length = length;
  part.buffers.clear();
  start(part, piece.below);
}

/// Only disks that have been written to since they were flushed are flushed. One that is being
/// flushed may be flushed again: writes have ended since.
bool SplitDisk::Operation::go_on_flushing() {
  for (; error_ == 0 && done_ < disk_.below_.size(); ++done_) {
    const Below& below = disk_.below_[done_];
    if (below.flushed == below.written) continue;
    Part* part = free_part();
    if (part == nullptr) return false;
    part->kind = Kind::kFlush;
    part->offset = part->length = 0;
    part->buffers.clear();
    part->written_before = below.written;
    start(*part, done_);
  }
  return running_ == 0;
}

void SplitDisk::Operation::part_done(Part& part, int error) {
  part.operation = nullptr;
  --running_;
  if (error != 0 && error_ == 0) error_ = error;
  Below& below = disk_.below_[part.below];
  if (part.kind == Kind::kFlush) {
    if (error == 0) below.flushed = std::max(below.flushed, part.written_before);
  } else if (part.kind == Kind::kExtent) {
    request_->extent = part.extent;
    request_->extent.length = std::clamp<uint64_t>(part.extent.length, 1, part.length);
  } else if (part.kind != Kind::kRead) {
    ++below.written;
  }
  if (go_on()) disk_.end(*this, error_);
}

}  // namespace crosvm
