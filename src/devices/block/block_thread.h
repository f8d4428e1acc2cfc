#pragma once

#include <memory>
#include <thread>

#include "devices/block/block_worker.h"

namespace crosvm {

/// A thread with a BlockWorker (`multiple-workers`).
class BlockThread {
 public:
  using MakeWorker = std::function<Result<std::unique_ptr<BlockWorker>>(EventLoop& loop)>;

  /// Errors: those of making the loop, the worker and the thread.
  static Result<std::unique_ptr<BlockThread>> create(const MakeWorker& make);
  /// Its queues have stopped.
  ~BlockThread();

  /// Runs `work(worker)` on the thread.
  void post(std::function<void(BlockWorker&)> work);

 private:
  BlockThread() = default;

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<BlockWorker> worker_;
  std::thread thread_;
};

}  // namespace crosvm
