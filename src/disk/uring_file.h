#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "base/log_limit.h"
#include "disk/async_file.h"

namespace crosvm {

/// An AsyncFile on an io_uring: one system call begins a batch, and often ends it.
class UringFile : public AsyncFile {
 public:
  static Result<std::unique_ptr<UringFile>> create(EventLoop& loop, const Fd& file, IoUring ring);
  ~UringFile() override;

  void queue(const FileOperation& operation) override;
  void submit() override;

 private:
  UringFile(EventLoop& loop, const Fd& file, IoUring ring);
  bool give(const FileOperation& operation);
  void give_waiting();
  bool give_to_kernel();
  bool reap_all();
  void discard_on_thread(const FileOperation& operation);

  EventLoop& loop_;
  const Fd& file_;
  IoUring ring_;
  EventLoop::WatchId watch_ = 0;
  EventLoop::TimerId retry_ = 0;
  std::deque<FileOperation> waiting_;   // while the ring is full
  std::unique_ptr<AsyncFile> threads_;  // for what io_uring cannot do; made when needed
  std::vector<FileDone*> refused_;      // where there is no thread
  bool working_ = false;                // inside submit
  LogLimit limit_{"errors of io_uring"};
};

}  // namespace crosvm
