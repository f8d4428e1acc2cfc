#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "disk/async_file.h"

namespace crosvm {

/// An AsyncFile on a few threads that make blocking system calls. Reads of cached pages are done on
/// the loop, without a thread.
class ThreadedFile : public AsyncFile {
 public:
  static constexpr size_t kThreads = 4;

  /// Starts one thread, and more when there is work for them. Errors: those of eventfd, epoll_ctl
  /// and of starting a thread.
  static Result<std::unique_ptr<ThreadedFile>> create(EventLoop& loop,
                                                      std::shared_ptr<const Fd> file);
  ~ThreadedFile() override;

  void queue(const FileOperation& operation) override;
  void submit() override;

 private:
  struct Ended {
    FileDone* done;
    int64_t result;
  };
  ThreadedFile(EventLoop& loop, std::shared_ptr<const Fd> file, Fd wake);
  bool read_cached(const FileOperation& operation);
  void give_to_threads(const std::vector<FileOperation>& operations);
  Result<void> start_threads(size_t wanted);
  void tell_ended();
  void work();

  EventLoop& loop_;
  const std::shared_ptr<const Fd> file_;
  const Fd wake_;  // signalled when `ended_` gets its first entry
  EventLoop::WatchId watch_ = 0;
  bool cached_reads_ = true;           // RWF_NOWAIT works on this file
  std::vector<FileOperation> queued_;  // until submit
  std::vector<Ended> told_next_;       // ended on the loop
  bool working_ = false;               // inside submit
  std::vector<std::thread> threads_;

  std::mutex mutex_;
  std::condition_variable more_;
  std::deque<FileOperation> todo_;  // guarded by mutex_, as are these:
  std::vector<Ended> ended_;
  size_t idle_ = 0;  // threads that wait for work
  bool stopping_ = false;
};

}  // namespace crosvm
