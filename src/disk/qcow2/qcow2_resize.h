#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "disk/qcow2/qcow2_operation.h"

namespace crosvm {

/// Makes the disk longer or shorter, with no other request on its way.
class Qcow2Disk::Resize final : private Waiter, private DiskRequest {
 public:
  Resize(Qcow2Disk& disk, uint64_t bytes, std::function<void(int)> done)
      : disk_(disk), bytes_(bytes), before_(disk.size_), done_(std::move(done)) {}
  void begin();
  bool is_running() const { return done_ != nullptr; }

 private:
  enum class Step : uint8_t { kL1, kDataFile, kMap, kZero, kCommit };

  void go_on(int error) override;
  void disk_done(int error) override;
  void grow_l1();
  void map_raw_data();
  void zero();
  void commit();
  void end(int error);

  Qcow2Disk& disk_;
  const uint64_t bytes_;
  const uint64_t before_;
  uint64_t mapped_to_ = 0;  // bytes, of a raw data file
  Step step_ = Step::kL1;
  std::function<void(int)> done_;
};

}  // namespace crosvm
