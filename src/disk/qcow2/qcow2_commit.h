#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/log_limit.h"
#include "disk/flush_errors.h"
#include "disk/qcow2/qcow2_operation.h"

namespace crosvm {

/// Brings the file up to date, one commit after the other, and then frees what it does not use any
/// more. Who asks while one is running is served by the next.
class Qcow2Disk::Committer final : private Waiter, private PieceOwner {
 public:
  explicit Committer(Qcow2Disk& disk) : disk_(disk) {}

  bool is_running() const { return step_ != Step::kIdle; }
  /// What it has cut is on its way to the file.
  bool is_writing() const { return step_ >= Step::kGrow && step_ <= Step::kWrite; }
  /// `waiter` goes on when all that is changed so far is stable.
  void ask(Waiter& waiter);
  void begin();
  /// Nothing that began before the last cut is in flight any more.
  void drained();
  /// The disk goes: what has begun is as if it had not.
  void abandon();
  FlushErrors& flush_errors() { return flush_errors_; }

 private:
  enum class Step : uint8_t { kIdle, kDrain, kCut, kGrow, kFlush, kWrite, kDrainFreed, kFree };
  /// Gives the space of clusters back to the host, before anybody may use them again.
  class Punch final : public PieceOwner {
   public:
    explicit Punch(Committer& committer) : committer_(committer) {}
    void piece_done(int error) override;
    ClusterRun run;

   private:
    Committer& committer_;
  };
  static constexpr size_t kMostPieces = 32;

  void go_on(int error) override;
  void piece_done(int error) override;
  bool is_damaged() const { return disk_.metadata_->damage().found(); }
  void cut();
  void next_stage();
  void write_some();
  void flush();
  void end_stages(int error);
  void free_some();
  bool free_run();
  void end();

  Qcow2Disk& disk_;
  Step step_ = Step::kIdle;
  Qcow2Metadata::Commit commit_;
  std::vector<Waiter*> waiters_;  // for the next
  std::vector<Waiter*> served_;   // by the running one
  size_t stage_ = 0;
  size_t next_write_ = 0;
  size_t pieces_ = 0;
  bool flushed_data_ = false;
  int error_ = 0;
  std::vector<ClusterRun> freed_;  // what is yet to be freed, the next at the end
  ObjectPool<Punch> punches_;
  std::vector<Punch*> punching_;
  bool freeing_ = false;
  bool waiting_ = false;
  FlushErrors flush_errors_;
  FlushErrors::Flush flush_;  // its own
  LogLimit limit_{"failures to bring a qcow2 image up to date"};
};

}  // namespace crosvm
