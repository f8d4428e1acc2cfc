#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/packet_socket.h"
#include "base/result.h"
#include "jail/broker_channel.h"
#include "jail/spawner.h"
#include "jail/worker_commands.h"
#include "jail/worker_order.h"
#include "vhost/vhost_user_backend.h"

namespace crosvm {

/// The process of one device as the VMM sees it, and those that take its place.
///
/// A process that is to be replaced is replaced when three things are known: the spawner says that
/// it has ended, nobody holds the pipe any more that its io_uring instances held (IoUring::create),
/// and its backend has noticed. Threads of its own end with the process; so when a successor
/// starts, nothing of the old one is under way that could be written after what the successor
/// writes. Nothing waits for it: all happens in callbacks of the loop.
class SupervisedWorker {
 public:
  struct Rules {
    bool restarts = false;
    size_t restarts_a_minute = 0;
  };
  /// What it needs of others, all of which outlives it.
  struct Context {
    EventLoop& loop;
    Spawner& spawner;
    /// A number for the spawner that no process has had.
    std::function<uint32_t()> next_number;
    /// The device has no process any more and gets no other. On the loop.
    std::function<void(const std::string& device, const std::string& cause)> died;
    /// Ends what `finish` waits for (wait_ready); may be null.
    const Fd* interrupt;
  };

  /// `order` lacks what each process gets of its own: frontend and witness. `program` is what it
  /// executes. `files`, if there is one, opens what the device's files name.
  SupervisedWorker(Context context, Rules rules, WorkerOrder order, WorkerProgram program,
                   std::unique_ptr<FileBroker> files);
  ~SupervisedWorker();
  SupervisedWorker(const SupervisedWorker&) = delete;
  SupervisedWorker& operator=(const SupervisedWorker&) = delete;

  // Before the loop runs:
  /// Has the process started; does not wait for it. Errors: of sending to the spawner, and for an
  /// order that is too large.
  Result<void> start();
  /// Waits until it serves its device. Errors: what kept it from that; interrupted. A process that
  /// came to be and then died is also told by `died`.
  Result<std::unique_ptr<DeviceBackend>> finish();

  /// What the spawner calls the present process.
  uint32_t number() const { return number_; }
  const std::string& name() const { return order_.name; }
  /// The spawner says so of the present process.
  void ended(WorkerEnd end, std::string cause);
  /// The spawner has gone, and all processes with it.
  void lost();

 private:
  enum class Phase {
    kStarting,   // the first one
    kServing,    //
    kDying,      // it is being replaced, and not all of it is known to be over
    kReplacing,  // the next one is not ready
    kEnded,
  };
  Result<void> launch();
  Result<DeviceInfo> await_answer();
  Result<std::unique_ptr<DeviceBackend>> first_backend();
  Error first_process_gone();
  VhostUserOptions backend_options(const DeviceInfo& info);
  void later(std::function<void()> work);

  void disconnected();
  void io_over();
  void dies();
  void replace_when_over();
  bool may_restart();
  void answered();
  void reconnected(Result<void> result);
  Result<void> serve_commands();
  void command_answered();
  void kill();
  void give_up(const std::string& cause);
  void forget_process();

  Context context_;
  Rules rules_;
  WorkerOrder order_;
  WorkerProgram program_;
  BrokerDesk files_;
  WorkerCommands commands_;
  Phase phase_ = Phase::kStarting;
  uint32_t number_ = 0;
  std::string cause_;  // of the end of the present process

  // The present process:
  PacketSocket channel_;
  Fd frontend_;        // until the handshake
  Fd io_;              // the read end of the witness
  bool gone_ = true;   // the spawner says so
  bool died_ = false;  // it was there, and did not end by itself
  bool io_over_ = true;
  bool connected_ = false;  // the backend has its socket, or tries to come to terms with it
  EventLoop::WatchId channel_watch_ = 0;
  EventLoop::WatchId io_watch_ = 0;
  EventLoop::TimerId timer_ = 0;

  VhostUserBackend::Remote backend_;
  std::deque<EventLoop::Clock::time_point> restarts_;  // of the last minute
  uint64_t restart_count_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace crosvm
