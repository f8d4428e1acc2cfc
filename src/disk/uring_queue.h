#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "base/log_limit.h"
#include "disk/async_file.h"

namespace crosvm {

/// The io_uring that the files of one disk share: one system call begins a batch of all of them,
/// and often ends it. They go together: the first that goes drops what the others have in hand.
class UringQueue {
 public:
  /// What has to do with one of its files.
  class User {
   public:
    /// Begins what does not go through the ring, and tells what has been refused. Whether any was.
    virtual bool submit_rest() = 0;
    virtual void batch_ended() = 0;

   protected:
    ~User() = default;
  };

  static Result<std::shared_ptr<UringQueue>> create(EventLoop& loop, IoUring ring);
  ~UringQueue();
  UringQueue(const UringQueue&) = delete;
  UringQueue& operator=(const UringQueue&) = delete;

  void join(User& user) { users_.push_back(&user); }
  /// Waits for all that the kernel has in hand.
  void leave(User& user);

  EventLoop& loop() { return loop_; }
  LogLimit& limit() { return limit_; }
  /// `file` lives until the operation has ended. Only what a ring can do.
  void queue(const Fd& file, const FileOperation& operation);
  void submit();

 private:
  struct Waiting {
    const Fd* file;
    FileOperation operation;
  };
  UringQueue(EventLoop& loop, IoUring ring);
  bool give(const Fd& file, const FileOperation& operation);
  void give_waiting();
  bool give_to_kernel();
  bool reap_all();
  void drain();

  EventLoop& loop_;
  IoUring ring_;
  EventLoop::WatchId watch_ = 0;
  EventLoop::TimerId retry_ = 0;
  std::vector<User*> users_;
  std::deque<Waiting> waiting_;  // while the ring is full
  bool working_ = false;         // inside submit
  LogLimit limit_{"errors of io_uring"};
};

}  // namespace crosvm
