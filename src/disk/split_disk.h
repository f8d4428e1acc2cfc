#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "disk/disk.h"

namespace crosvm {

/// A disk of which each byte lies in one of the disks below it or is part of a pattern: requests
/// are split at the borders. A request has only so many parts on their way at a time.
class SplitDisk : public Disk {
 public:
  ~SplitDisk() override;

  uint64_t size() const override { return size_; }
  DiskTopology topology() const override;
  void start(DiskRequest& request) override;
  void submit() override;
  void on_batch(std::function<void()> told) override { batch_told_ = std::move(told); }

 protected:
  /// A run of bytes that lie together.
  struct Piece {
    static constexpr size_t kPattern = SIZE_MAX;
    size_t below = kPattern;  ///< which disk has it
    uint64_t offset = 0;      ///< there; or the number of bytes of the pattern that come before
    uint64_t length = 0;      ///< up to its border; not 0
    uint32_t pattern = 0;     ///< little endian, over and over; is never written to
    bool writable = false;
  };
  /// One of the disks below.
  struct Below {
    std::unique_ptr<Disk> disk;
    uint64_t written = 0;  ///< how many writes have ended; `flushed` counts those that are stable
    uint64_t flushed = 0;
  };

  SplitDisk(uint64_t size, bool read_only, std::vector<std::unique_ptr<Disk>> below);

  /// What lies at `offset`, which is less than the size, and from there on.
  virtual Piece piece_at(uint64_t offset) const = 0;

  std::span<const Below> below() const { return below_; }

 private:
  class Operation;
  class Part;

  int refusal(const DiskRequest& request) const;
  void start_below(size_t below, DiskRequest& request);
  void end(Operation& operation, int error);

  const uint64_t size_;
  const bool read_only_;
  std::vector<std::unique_ptr<Operation>> operations_;  // all there are
  std::vector<Operation*> free_;
  std::vector<std::pair<Operation*, int>> ended_;  // to be told of with the next submit
  std::vector<size_t> started_;                    // disks that have what is not submitted
  bool submitting_ = false;
  bool told_ = false;  // of a request since the last batch
  std::function<void()> batch_told_;
  std::vector<Below> below_;  // goes first: it may hold parts of operations
};

}  // namespace crosvm
