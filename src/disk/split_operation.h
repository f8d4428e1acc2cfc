#pragma once

#include <array>
#include <cstdint>

#include "disk/split_disk.h"

namespace crosvm {

/// What a SplitDisk asks of a disk below it, for one of its requests.
class SplitDisk::Part final : public DiskRequest {
 public:
  void disk_done(int error) override;

  Operation* operation = nullptr;  ///< or none: it is free
  size_t below = 0;
  uint64_t written_before = 0;  ///< of a flush: which writes it makes stable
};

/// One request of a SplitDisk on its way.
class SplitDisk::Operation {
 public:
  explicit Operation(SplitDisk& disk) : disk_(disk) {}

  void assign(DiskRequest& request);
  DiskRequest& request() const { return *request_; }
  /// Starts what may be on its way. Whether the request has ended; `error` then.
  bool go_on();
  int error() const { return error_; }
  void part_done(Part& part, int error);

 private:
  static constexpr size_t kParts = 8;  // on their way at a time

  bool go_on_flushing();
  void do_piece(Part& part);
  void find_extent(Part& part, const Piece& piece, uint64_t length);
  Part* free_part();
  void start(Part& part, size_t below);

  SplitDisk& disk_;
  DiskRequest* request_ = nullptr;
  uint64_t done_ = 0;  // bytes of the request that have been started; of a flush, disks
  size_t running_ = 0;
  int error_ = 0;  // the first one
  std::array<Part, kParts> parts_;
};

}  // namespace crosvm
