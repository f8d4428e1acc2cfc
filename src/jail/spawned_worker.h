#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/packet_socket.h"
#include "base/result.h"
#include "jail/worker_end.h"

namespace crosvm {

/// What a worker executes.
struct WorkerExecutable {
  const Fd& fd;      ///< O_PATH
  std::string path;  ///< for errors; empty: crosvm itself
};

/// One worker as the spawner sees it: a child process, and the listener of its system call filter.
class SpawnedWorker {
 public:
  /// `cause` is a clause: "was killed by SIGSEGV".
  using Ended = std::function<void(WorkerEnd end, std::string cause)>;

  /// Executes `program` in namespaces of its own, with `channel` as kWorkerChannel. `ended` is
  /// called once, on the loop. Errors name what the host does not allow, or why the program cannot
  /// be executed, and what helps.
  static Result<std::unique_ptr<SpawnedWorker>> start(EventLoop& loop,
                                                      const WorkerExecutable& program,
                                                      std::string name, Fd channel, Ended ended);
  /// Kills the process if it is still there, and waits for it.
  ~SpawnedWorker();
  SpawnedWorker(const SpawnedWorker&) = delete;
  SpawnedWorker& operator=(const SpawnedWorker&) = delete;

  void kill();
  /// Waits until the process has gone. `ended` is not called any more.
  void wait();

 private:
  SpawnedWorker(EventLoop& loop, std::string name, Ended ended);
  Result<void> watch();
  Result<void> execute(const WorkerExecutable& program, const Fd& channel, const Fd& listener);
  void take_listener();
  void hear_denied(uint32_t events);
  void reap();
  void unwatch(EventLoop::WatchId& watch);

  EventLoop& loop_;
  std::string name_;
  std::string program_;  // its path, unless it is crosvm
  Ended ended_;
  Fd pidfd_;
  PacketSocket listener_channel_;
  Fd listener_;
  bool prepared_ = false;  // it is in its jail
  std::string denied_;     // the call it is killed for
  EventLoop::WatchId pid_watch_ = 0;
  EventLoop::WatchId channel_watch_ = 0;
  EventLoop::WatchId listener_watch_ = 0;
};

}  // namespace crosvm
