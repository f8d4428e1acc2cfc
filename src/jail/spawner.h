#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/packet_socket.h"
#include "base/result.h"
#include "jail/worker_end.h"

namespace crosvm {

/// What a worker is, unless it is another process of this program in an empty network.
struct WorkerProgram {
  Fd executable;              ///< O_PATH; none: this program
  std::string path;           ///< of `executable`, for errors
  bool host_network = false;  ///< it stays in our network. Such are started before all others
};

/// The VMM's hold on its spawner: a small process that starts the workers, says what became of
/// each, and outlives the VMM to leave nothing behind. The VMM cannot do this itself: its filters
/// would survive into the workers, and it may be killed.
class Spawner {
 public:
  struct Events {
    /// A worker has ended, or could not be started; `cause` is a clause, with what helps where that
    /// is known: "was killed by SIGSEGV".
    std::function<void(uint32_t worker, WorkerEnd end, std::string cause)> ended;
    std::function<void()> lost;  ///< the spawner itself has gone, and the workers with it
  };

  /// Starts the process. The caller must have one thread and should have no guest yet.
  static Result<std::unique_ptr<Spawner>> start();
  /// Ends the workers that are left and waits until all are gone. A spawner that does not do so for
  /// some seconds is killed, and they with it.
  ~Spawner();
  Spawner(const Spawner&) = delete;
  Spawner& operator=(const Spawner&) = delete;

  /// Starts a worker that finds `control` as its WorkerChannel; not waited for. `worker` is a
  /// number of the caller's choice. Errors: those of sending to the spawner.
  Result<void> spawn(uint32_t worker, const std::string& name, Fd control,
                     WorkerProgram program = {});
  /// Ends a worker, if it is there. It is reported like any other end.
  Result<void> kill(uint32_t worker);
  /// Should the VMM die: the socket file at `path` (absolute), as it is now, is removed.
  Result<void> guard_socket(const std::string& path);
  /// Should the VMM die: standard input, a terminal, gets the settings back that it has now.
  Result<void> guard_terminal();

  /// From now on: what the filter `policy` of our thread `thread`, whose listener this is, does not
  /// allow is logged, and ends us. On any thread.
  Result<void> supervise(const std::string& policy, const std::string& thread, Fd listener);

  /// Tells `events` on the loop from here on, which outlives this.
  Result<void> watch(EventLoop& loop, Events events);
  /// Before the loop runs: hears the spawner out, and tells `events`, until it has said that
  /// `worker` has ended. Errors: timed_out after some seconds; interrupted by `interrupt`
  /// (wait_ready).
  Result<void> wait_for_end(uint32_t worker, const Fd* interrupt = nullptr);

  pid_t pid() const { return pid_; }

 private:
  Spawner(Fd socket, pid_t pid);
  Result<void> send(const Packet& packet);
  /// Takes one message. Returns the worker it is about, or nothing when the spawner has gone.
  std::optional<uint32_t> receive();
  void wait_for_exit();

  PacketSocket socket_;
  pid_t pid_;
  Fd process_;  // its pidfd
  EventLoop* loop_ = nullptr;
  EventLoop::WatchId watch_ = 0;
  Events events_;
};

}  // namespace crosvm
