#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "disk/raw_disk.h"

namespace crosvm {

/// One request of a RawDisk on its way: as many system calls as it takes, one after the other.
class RawDisk::Operation final : public FileDone {
 public:
  explicit Operation(RawDisk& disk) : disk_(disk) {}

  /// Makes it work on `request`, which it does not look at yet.
  void assign(DiskRequest& request) { request_ = &request; }
  DiskRequest& request() const { return *request_; }
  void begin();
  /// A bounce buffer may be free now.
  void go_on() { transfer(); }
  /// Gives back what it holds.
  void release();

  void file_done(int64_t result) override;

  bool counted = false;  ///< among the running writes
  bool alone = false;

 private:
  enum class Step : uint8_t {
    kTransfer,     // between the file and the buffers
    kBounceRead,   // file to bounce buffer, for the guest
    kBounceFill,   // file to bounce buffer, around what the guest writes
    kBounceWrite,  // bounce buffer to file
    kPunchHole,
    kZeroRange,
    kDiscard,
    kSync,
    kSeekData,
    kSeekHole,
  };

  bool writes() const { return request_->kind != DiskRequest::Kind::kRead; }
  void find_extent(int whence);
  void extent_done(int64_t result);
  void queue(FileOperation operation, Step step);
  void transfer();
  bool is_aligned() const;
  void transfer_by_bounce();
  void queue_bounce(Step step);
  void discard();
  uint64_t whole_pages() const;
  void write_zeroes();
  void use_zeroes(uint64_t bytes);
  void allocate_done(int64_t result);
  void discard_done(int64_t result);
  void transfer_done(uint64_t bytes);
  void bounce_done(uint64_t bytes);
  void advance(uint64_t bytes);
  template <class Copy>
  void each_byte_run(std::span<std::byte> bounce, Copy copy);
  bool drop_uncached(int64_t result);
  void end(int error) { disk_.end(*this, error); }

  RawDisk& disk_;
  DiskRequest* request_ = nullptr;
  Step step_ = Step::kTransfer;
  bool may_punch_ = false;  // what this request's zeroes may be made by
  bool may_zero_range_ = false;
  int flags_ = 0;               // RWF_* of the last transfer
  std::vector<iovec> buffers_;  // of the bytes [position_, piece_end_), from first_ on
  size_t first_ = 0;
  uint64_t position_ = 0;
  uint64_t piece_end_ = 0;
  uint64_t end_ = 0;
  std::span<std::byte> bounce_;
  iovec bounce_vector_ = {};
  uint64_t bounce_offset_ = 0;  // in the file, of the bounce buffer's first byte
};

}  // namespace crosvm
