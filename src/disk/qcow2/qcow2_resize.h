#pragma once

#include <functional>
#include <utility>

#include "disk/qcow2/qcow2_operation.h"

namespace crosvm {

/// Makes the disk longer or shorter, with no other request on its way. Wherever it is cut off, the
/// disk has one size or the other, and what is past its end is zero when it comes into view. When
/// it cannot get longer, what was taken for that is given back, as far as the host lets it.
class Qcow2Disk::Resize final : private Waiter, private PieceOwner, private DiskRequest {
 public:
  Resize(Qcow2Disk& disk, uint64_t bytes, ResizeDone done)
      : disk_(disk),
        bytes_(bytes),
        before_(disk.size_),
        l1_before_(disk.metadata_->l2().l1().size()),
        done_(std::move(done)) {}
  void begin();
  bool is_running() const { return done_ != nullptr; }

 private:
  enum class Step : uint8_t { kL1, kDataFile, kZero, kMap, kCommit, kUndo, kDrop, kLast };

  void go_on(int error) override;
  void piece_done(int error) override;
  void disk_done(int error) override;
  void grow_l1();
  void zero_data_file();
  void grow_data_file();
  void zero();
  void map_raw_data();
  void commit();
  void drop();
  Qcow2Need drop_clusters();
  void dropped();
  void last_commit();
  void undo();
  void fail_with(int error);
  void end();

  Qcow2Disk& disk_;
  const uint64_t bytes_;
  const uint64_t before_;
  const uint64_t l1_before_;  // entries
  int error_ = 0;             // why it could not be made longer
  uint64_t position_ = 0;     // bytes of the disk: of what takes several steps
  Step step_ = Step::kL1;
  ResizeDone done_;
};

}  // namespace crosvm
