#include "disk/raw_operation.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

#include "base/linux_abi.h"
#include "base/log.h"

namespace crosvm {
namespace {

using Kind = DiskRequest::Kind;
using FileKind = FileOperation::Kind;

constexpr size_t kZeroBytes = 64 << 10;
constexpr uint64_t kZeroesAtOnce = 1 << 20;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kMostPage = 64 << 10;  // network file systems name megabytes

/// Read-only; aligned for direct I/O.
alignas(4096) constinit std::array<std::byte, kZeroBytes> g_zeroes = {};

bool is_unsupported(int64_t result) {
  return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENODEV;
}

uint64_t round_down(uint64_t value, uint64_t unit) { return value & ~(unit - 1); }
uint64_t round_up(uint64_t value, uint64_t unit) { return round_down(value + unit - 1, unit); }

}  // namespace

void RawDisk::Operation::begin() {
  position_ = request_->offset;
  end_ = piece_end_ = request_->offset + request_->length;
  may_zero_range_ = true;
  may_punch_ = request_->may_unmap && disk_.options_.sparse;
  first_ = 0;
  buffers_.clear();
  switch (request_->kind) {
    case Kind::kRead:
    case Kind::kWrite:
      for (const GuestSlice& slice : request_->buffers) {
        if (slice.size() > 0) buffers_.push_back(slice.as_iovec());
      }
      return transfer();
    case Kind::kFlush:
      return queue({.kind = FileKind::kSync}, Step::kSync);
    case Kind::kDiscard:
      return discard();
    case Kind::kWriteZeroes:
      return write_zeroes();
    case Kind::kExtent:
      return find_extent(SEEK_DATA);
  }
}

void RawDisk::Operation::release() {
  if (!bounce_.empty()) disk_.bounce_.give_back(std::exchange(bounce_, {}));
}

void RawDisk::Operation::queue(FileOperation operation, Step step) {
  step_ = step;
  operation.done = this;
  disk_.file_->queue(operation);
}

// Transfers -----------------------------------------------------------------------------------

void RawDisk::Operation::transfer() {
  if (!is_aligned()) return transfer_by_bounce();
  bool uncached = writes() ? disk_.uncached_writes_ : disk_.uncached_reads_;
  flags_ = uncached ? RWF_DONTCACHE : 0;
  size_t count = std::min<size_t>(buffers_.size() - first_, IOV_MAX);
  queue({.kind = writes() ? FileKind::kWrite : FileKind::kRead,
         .buffers = std::span(buffers_).subspan(first_, count),
         .offset = position_,
         .flags = flags_},
        Step::kTransfer);
}

bool RawDisk::Operation::is_aligned() const {
  const DirectAlignment& unit = disk_.facts_.alignment;
  if (unit.offset == 1) return true;
  if (position_ % unit.offset != 0 || piece_end_ % unit.offset != 0) return false;
  return std::ranges::all_of(std::span(buffers_).subspan(first_), [&](const iovec& buffer) {
    return reinterpret_cast<uintptr_t>(buffer.iov_base) % unit.memory == 0 &&
           buffer.iov_len % unit.offset == 0;
  });
}

void RawDisk::Operation::advance(uint64_t bytes) {
  position_ += bytes;
  while (bytes > 0) {
    iovec& buffer = buffers_[first_];
    size_t taken = std::min<uint64_t>(bytes, buffer.iov_len);
    buffer.iov_base = static_cast<std::byte*>(buffer.iov_base) + taken;
    buffer.iov_len -= taken;
    bytes -= taken;
    if (buffer.iov_len == 0) ++first_;
  }
}

void RawDisk::Operation::transfer_done(uint64_t bytes) {
  uint64_t reached = position_ + std::min(bytes, piece_end_ - position_);
  // A write goes on where direct I/O can; what is written twice is the same.
  if (writes() && reached < piece_end_) {
    reached = round_down(reached, disk_.facts_.alignment.offset);
  }
  // Nothing more comes: somebody made the file shorter.
  if (reached <= position_) return end(EIO);
  advance(reached - position_);
  if (position_ < piece_end_) return transfer();
  if (position_ == end_) return end(0);
  write_zeroes();
}

// Direct I/O for buffers or places that are not aligned ---------------------------------------

void RawDisk::Operation::transfer_by_bounce() {
  uint64_t unit = disk_.facts_.alignment.offset;
  if (bounce_.empty()) bounce_ = disk_.bounce_.take(disk_.facts_.alignment.memory);
  if (bounce_.empty()) return disk_.waiting_buffers_.push_back(this);
  bounce_offset_ = round_down(position_, unit);
  uint64_t last = std::min(bounce_offset_ + bounce_.size(), round_up(piece_end_, unit));
  bounce_vector_ = {bounce_.data(), last - bounce_offset_};
  if (!writes()) return queue_bounce(Step::kBounceRead);
  bool whole_units = bounce_offset_ == position_ && last <= piece_end_;
  if (!whole_units) return queue_bounce(Step::kBounceFill);
  each_byte_run(bounce_.first(bounce_vector_.iov_len), [](std::byte* bounce, const iovec& run) {
    std::memcpy(bounce, run.iov_base, run.iov_len);
  });
  queue_bounce(Step::kBounceWrite);
}

void RawDisk::Operation::queue_bounce(Step step) {
  queue({.kind = step == Step::kBounceWrite ? FileKind::kWrite : FileKind::kRead,
         .buffers = std::span(&bounce_vector_, 1),
         .offset = bounce_offset_},
        step);
}

/// Calls `copy(bounce, run)` for each run of guest memory that lies beside `bounce`, from position_
/// on.
template <class Copy>
void RawDisk::Operation::each_byte_run(std::span<std::byte> bounce, Copy copy) {
  bounce = bounce.subspan(position_ - bounce_offset_);
  for (size_t i = first_; i < buffers_.size() && !bounce.empty(); ++i) {
    iovec run = buffers_[i];
    run.iov_len = std::min(run.iov_len, bounce.size());
    copy(bounce.data(), run);
    bounce = bounce.subspan(run.iov_len);
  }
}

void RawDisk::Operation::bounce_done(uint64_t bytes) {
  bytes = std::min<uint64_t>(bytes, bounce_vector_.iov_len);
  if (writes()) bytes = round_down(bytes, disk_.facts_.alignment.offset);
  uint64_t reached = std::min(bounce_offset_ + bytes, piece_end_);
  if (reached <= position_) return end(EIO);
  std::span<std::byte> moved = bounce_.first(bytes);
  if (step_ == Step::kBounceFill) {
    each_byte_run(moved, [](std::byte* bounce, const iovec& run) {
      std::memcpy(bounce, run.iov_base, run.iov_len);
    });
    bounce_vector_.iov_len = bytes;
    return queue_bounce(Step::kBounceWrite);
  }
  if (step_ == Step::kBounceRead) {
    each_byte_run(moved, [](std::byte* bounce, const iovec& run) {
      std::memcpy(run.iov_base, bounce, run.iov_len);
    });
  }
  // The buffer goes back between pieces: others wait for one, too.
  release();
  transfer_done(reached - position_);
}

// Space ---------------------------------------------------------------------------------------

void RawDisk::Operation::discard() {
  uint64_t unit = disk_.facts_.logical_block;
  if (!disk_.options_.sparse || !disk_.punches_holes_) return disk_.end_soon(*this, 0);
  if (!disk_.facts_.is_block_device) {
    const uint64_t whole = whole_pages();
    const uint64_t from = round_up(position_, whole);
    const uint64_t to = round_down(end_, whole);
    if (from >= to) return disk_.end_soon(*this, 0);
    return queue({.kind = FileKind::kAllocate,
                  .offset = from,
                  .length = to - from,
                  .flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE},
                 Step::kDiscard);
  }
  uint64_t first = round_up(position_, unit);
  uint64_t last = round_down(end_, unit);
  if (first >= last) return disk_.end_soon(*this, 0);
  queue({.kind = FileKind::kDiscardBlocks, .offset = first, .length = last - first},
        Step::kDiscard);
}

void RawDisk::Operation::discard_done(int64_t result) {
  if (is_unsupported(result)) disk_.punches_holes_ = disk_.facts_.is_block_device;
  end(result < 0 && !is_unsupported(result) ? static_cast<int>(-result) : 0);
}

/// What a hole is made of by direct I/O. The file system makes parts of a page zero in the page
/// cache, and a transfer past that at the same moment would be undone by it, or fail.
uint64_t RawDisk::Operation::whole_pages() const {
  const bool is_direct = disk_.facts_.alignment.offset > 1 && !disk_.facts_.is_block_device;
  return is_direct ? std::clamp<uint64_t>(disk_.facts_.topology.minimum_io, kPage, kMostPage) : 1;
}

/// From position_ on: as a hole or a range of zeroes what can be, the rest by writes.
void RawDisk::Operation::write_zeroes() {
  const bool punches = may_punch_ && disk_.punches_holes_;
  const bool allocates = punches || (may_zero_range_ && disk_.zeroes_ranges_);
  const uint64_t whole = whole_pages();
  const uint64_t last = round_down(end_, whole);
  if (allocates && position_ < last && position_ % whole == 0) {
    piece_end_ = last;
    const int mode = punches ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    return queue({.kind = FileKind::kAllocate,
                  .offset = position_,
                  .length = last - position_,
                  .flags = mode | FALLOC_FL_KEEP_SIZE},
                 punches ? Step::kPunchHole : Step::kZeroRange);
  }
  const uint64_t most = allocates ? round_up(position_ + 1, whole) - position_ : kZeroesAtOnce;
  use_zeroes(std::min(most, end_ - position_));
  transfer();
}

void RawDisk::Operation::allocate_done(int64_t result) {
  if (result >= 0) {
    position_ = piece_end_;
    return position_ == end_ ? end(0) : write_zeroes();
  }
  // EINVAL is about this range alone: a block device wants whole blocks.
  if (!is_unsupported(result) && result != -EINVAL) return end(static_cast<int>(-result));
  const bool punched = step_ == Step::kPunchHole;
  if (is_unsupported(result) && punched) disk_.punches_holes_ = disk_.facts_.is_block_device;
  if (is_unsupported(result) && !punched) disk_.zeroes_ranges_ = false;
  (punched ? may_punch_ : may_zero_range_) = false;
  write_zeroes();
}

// What lies where -----------------------------------------------------------------------------

void RawDisk::Operation::find_extent(int whence) {
  queue({.kind = FileKind::kSeek, .offset = position_, .flags = whence},
        whence == SEEK_DATA ? Step::kSeekData : Step::kSeekHole);
}

void RawDisk::Operation::extent_done(int64_t result) {
  DiskRequest::Extent& extent = request_->extent;
  extent = {.length = end_ - position_};
  const bool looked_for_data = step_ == Step::kSeekData;
  // What cannot be told apart counts as data; a hole reaches to the end of the file.
  if (result < 0 && !(looked_for_data && result == -ENXIO)) return end(0);
  const uint64_t found =
      result < 0 ? end_ : std::min<uint64_t>(static_cast<uint64_t>(result), end_);
  if (looked_for_data && found <= position_) return find_extent(SEEK_HOLE);
  if (found > position_) extent = {.length = found - position_, .is_zero = looked_for_data};
  end(0);
}

/// Makes the next piece zeroes, of that many bytes.
void RawDisk::Operation::use_zeroes(uint64_t bytes) {
  piece_end_ = position_ + bytes;
  buffers_.clear();
  first_ = 0;
  for (uint64_t at = position_; at < piece_end_; at += buffers_.back().iov_len) {
    buffers_.push_back({g_zeroes.data(), std::min<uint64_t>(kZeroBytes, piece_end_ - at)});
  }
}

// ---------------------------------------------------------------------------------------------

/// Whether the file system has no uncached I/O, and the transfer goes on without.
bool RawDisk::Operation::drop_uncached(int64_t result) {
  if (step_ != Step::kTransfer || (flags_ & RWF_DONTCACHE) == 0 || result != -EOPNOTSUPP) {
    return false;
  }
  bool& flag = writes() ? disk_.uncached_writes_ : disk_.uncached_reads_;
  if (flag) log::info("dontcache: not here for {}", writes() ? "writes" : "reads");
  flag = false;
  return true;
}

void RawDisk::Operation::file_done(int64_t result) {
  if (result == -EINTR && step_ == Step::kTransfer) return transfer();
  if (result < 0 && drop_uncached(result)) return transfer();
  switch (step_) {
    case Step::kPunchHole:
    case Step::kZeroRange:
      return allocate_done(result);
    case Step::kDiscard:
      return discard_done(result);
    case Step::kSync:
      return end(result < 0 ? static_cast<int>(-result) : 0);
    case Step::kSeekData:
    case Step::kSeekHole:
      return extent_done(result);
    default:
      break;
  }
  if (result < 0) return end(static_cast<int>(-result));
  step_ == Step::kTransfer ? transfer_done(static_cast<uint64_t>(result))
                           : bounce_done(static_cast<uint64_t>(result));
}

}  // namespace crosvm
