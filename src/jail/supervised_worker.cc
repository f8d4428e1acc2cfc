#include "jail/supervised_worker.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "base/socket_pair.h"
#include "base/wait_ready.h"

namespace crosvm {
namespace {

using Clock = EventLoop::Clock;

/// A process that has not begun to serve by then never will; the machine may be very busy.
constexpr std::chrono::seconds kStartPatience{30};
/// After so long a word is said about I/O that does not end.
constexpr std::chrono::seconds kQuiescencePatience{10};
constexpr std::chrono::minutes kRestartWindow{1};

Result<FdPair> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return fail(Error::from_errno("creating", "a pipe for a device process"));
  }
  return FdPair{.ours = Fd(ends[0]), .theirs = Fd(ends[1])};
}

}  // namespace

SupervisedWorker::SupervisedWorker(Context context, Rules rules, WorkerOrder order,
                                   WorkerProgram program, std::unique_ptr<FileBroker> files)
    : context_(std::move(context)),
      rules_(rules),
      order_(std::move(order)),
      program_(std::move(program)),
      files_(std::move(files), rules.restarts),
      commands_(order_.name),
      channel_(Fd(), kWorkerPackets) {
  order_.restarts = rules_.restarts;
}

SupervisedWorker::~SupervisedWorker() { forget_process(); }

// ---- the first process

Result<void> SupervisedWorker::start() { return launch(); }

Result<void> SupervisedWorker::launch() {
  FdPair channel = TRY(make_socket_pair(SOCK_SEQPACKET, "a device process"));
  FdPair frontend = TRY(make_socket_pair(SOCK_STREAM, "a device process"));
  FdPair witness;
  WorkerOrder order;
  if (rules_.restarts) {
    witness = TRY(make_pipe());
    order = TRY(duplicate(order_));
  } else {
    order = std::exchange(order_, {});
    order_.name = order.name;
  }
  order.frontend = std::move(frontend.theirs);
  order.io_witness = std::move(witness.theirs);

  TRY(set_non_blocking(channel.ours));  // it may ask for files and take no answer
  channel_ = PacketSocket(std::move(channel.ours), kWorkerPackets);
  TRY(channel_.send(TRY(encode_worker_order(std::move(order)))));
  number_ = context_.next_number();
  WorkerProgram program{
      .executable = {}, .path = program_.path, .host_network = program_.host_network};
  if (program_.executable) program.executable = TRY(program_.executable.duplicate());
  TRY(context_.spawner.spawn(number_, name(), std::move(channel.theirs), std::move(program)));
  gone_ = false;
  died_ = false;
  frontend_ = std::move(frontend.ours);
  io_ = std::move(witness.ours);
  io_over_ = !io_;
  if (!io_) return {};
  // What is written to it is not listened to: its end counts.
  io_watch_ = TRY(context_.loop.watch(io_, 0, [this](uint32_t) { io_over(); }));
  return {};
}

/// The process has let go of us, or the spawner says that it is no more.
Error SupervisedWorker::first_process_gone() {
  if (!gone_) {
    if (auto heard = context_.spawner.wait_for_end(number_, context_.interrupt); !heard) {
      return std::move(heard).error();
    }
  }
  if (died_) context_.died(name(), cause_);
  return Error(std::errc::broken_pipe, format_text("its process {}", cause_));
}

Result<DeviceInfo> SupervisedWorker::await_answer() {
  const Clock::time_point deadline = Clock::now() + kStartPatience;
  while (true) {
    const Waited waited = TRY(wait_ready(channel_.fd(), POLLIN, deadline, context_.interrupt));
    if (waited == Waited::kInterrupted) return fail(interrupted_waiting_for("its process"));
    if (waited == Waited::kLate) {
      return fail(Error(std::errc::timed_out,
                        format_text("its process did not start within {} seconds; the machine may "
                                    "be overloaded",
                                    kStartPatience.count())));
    }
    auto packet = channel_.receive();
    if (packet && *packet && BrokerDesk::concerns(**packet)) {
      auto sent = channel_.send(files_.answer(**packet));
      if (!sent && !peer_has_gone(sent.error().code())) return fail(std::move(sent).error());
      continue;  // one that has ended is heard of next
    }
    if (packet && *packet) return decode_worker_answer(**packet);
    return fail(first_process_gone());  // the spawner knows why
  }
}

VhostUserOptions SupervisedWorker::backend_options(const DeviceInfo& info) {
  VhostUserOptions options;
  options.name = name();
  options.device_type = info.device_type;
  options.queue_sizes = info.queue_sizes;
  options.config_length = info.config.size();
  options.disconnected = [this, alive = std::weak_ptr(alive_)](const Error&) {
    if (alive.expired()) return AfterLoss::kGiveUp;
    // One that lives on without us is of no use. What became of it, the spawner says.
    kill();
    later([this] { disconnected(); });
    return rules_.restarts ? AfterLoss::kAwaitAnother : AfterLoss::kGiveUp;
  };
  options.command = [this, alive = std::weak_ptr(alive_)](DeviceCommand command,
                                                          const CommandDone& done) {
    if (!alive.expired()) commands_.ask(std::move(command), done);
  };
  return options;
}

Result<std::unique_ptr<DeviceBackend>> SupervisedWorker::finish() {
  auto backend = first_backend();
  if (backend) return backend;
  phase_ = Phase::kEnded;
  if (!gone_) kill();  // else it would be waited for at the end, and it may not listen
  return backend;
}

Result<std::unique_ptr<DeviceBackend>> SupervisedWorker::first_backend() {
  auto info = with_context(await_answer(), name());
  files_.close();
  if (!info) return fail(std::move(info).error());
  auto made = VhostUserBackend::create(context_.loop, std::move(frontend_), backend_options(*info),
                                       context_.interrupt);
  if (gone_ || (!made && peer_has_gone(made.error().code()))) {
    return fail(first_process_gone().context(name()));
  }
  auto backend = TRY(std::move(made));
  connected_ = true;
  backend_ = backend->remote();
  phase_ = Phase::kServing;
  TRY(with_context(serve_commands(), name()));
  return std::unique_ptr<DeviceBackend>(std::move(backend));
}

Result<void> SupervisedWorker::serve_commands() {
  channel_watch_ =
      TRY(context_.loop.watch(channel_.fd(), EPOLLIN, [this](uint32_t) { command_answered(); }));
  commands_.serve(channel_);
  return {};
}

void SupervisedWorker::command_answered() {
  auto packet = channel_.receive();
  if (packet && *packet && commands_.answered(**packet)) return;
  // It has gone, and the spawner will say why; or it speaks without being asked.
  context_.loop.unwatch(std::exchange(channel_watch_, 0));
  kill();
}

// ---- its end

/// The backend calls from within itself.
void SupervisedWorker::later(std::function<void()> work) {
  context_.loop.post([alive = std::weak_ptr(alive_), work = std::move(work)] {
    if (!alive.expired()) work();
  });
}

void SupervisedWorker::kill() { (void)context_.spawner.kill(number_); }

void SupervisedWorker::ended(WorkerEnd end, std::string cause) {
  if (gone_) return;
  gone_ = true;
  died_ = end == WorkerEnd::kDied;
  cause_ = std::move(cause);
  commands_.lost();
  if (phase_ == Phase::kStarting || phase_ == Phase::kEnded) return;
  if (!backend_.alive()) return forget_process();  // let go of in good order
  if (!rules_.restarts) return give_up(cause_);
  dies();
}

void SupervisedWorker::lost() {
  if (phase_ == Phase::kEnded) return;
  const bool starting = phase_ == Phase::kStarting;
  gone_ = true;
  died_ = true;
  cause_ = "was lost with the spawner";
  if (!starting) give_up(cause_);
}

void SupervisedWorker::disconnected() {
  connected_ = false;
  if (phase_ == Phase::kServing) return dies();
  replace_when_over();
}

void SupervisedWorker::io_over() {
  context_.loop.unwatch(std::exchange(io_watch_, 0));
  io_over_ = true;
  replace_when_over();
}

void SupervisedWorker::dies() {
  if (phase_ == Phase::kServing || phase_ == Phase::kReplacing) {
    phase_ = Phase::kDying;
    context_.loop.cancel(std::exchange(timer_, 0));
    timer_ = context_.loop.after(kQuiescencePatience, [this] {
      timer_ = 0;
      log::warn(
          "{}: its process has died, and its I/O has not ended within {} seconds; the device waits "
          "for that, as for a disk that does not answer",
          name(), kQuiescencePatience.count());
    });
  }
  replace_when_over();
}

bool SupervisedWorker::may_restart() {
  const Clock::time_point now = Clock::now();
  while (!restarts_.empty() && now - restarts_.front() >= kRestartWindow) restarts_.pop_front();
  if (restarts_.size() >= rules_.restarts_a_minute) return false;
  restarts_.push_back(now);
  return true;
}

// ---- the next one

void SupervisedWorker::replace_when_over() {
  if (phase_ != Phase::kDying || !gone_ || !io_over_ || connected_) return;
  if (!may_restart()) {
    return give_up(format_text("{}, after it was started anew {} times within a minute", cause_,
                               restarts_.size()));
  }
  ++restart_count_;
  log::warn("{}: its process {}; it is started anew, for the {}. time", name(), cause_,
            restart_count_);
  forget_process();
  phase_ = Phase::kReplacing;
  auto launched = launch();
  if (launched) {
    auto watched = context_.loop.watch(channel_.fd(), EPOLLIN, [this](uint32_t) { answered(); });
    if (watched) channel_watch_ = *watched;
    if (!watched) launched = fail(std::move(watched).error());
  }
  if (!launched) {
    return give_up(
        format_text("{} and could not be started anew: {}", cause_, launched.error().what()));
  }
  timer_ = context_.loop.after(kStartPatience, [this] {
    timer_ = 0;
    log::error("{}: its new process did not start within {} seconds", name(),
               kStartPatience.count());
    kill();
  });
}

void SupervisedWorker::answered() {
  auto packet = channel_.receive();
  if (packet && *packet && BrokerDesk::concerns(**packet)) {
    if (!channel_.send(files_.answer(**packet))) kill();
    return;
  }
  context_.loop.unwatch(std::exchange(channel_watch_, 0));
  if (!packet || !*packet) return kill();  // the spawner says why
  if (auto info = decode_worker_answer(**packet); !info) {
    log::error("{}: its new process does not serve it: {}", name(), info.error().what());
    return kill();
  }
  connected_ = true;
  auto done = [this, alive = std::weak_ptr(alive_), number = number_](Result<void> result) {
    if (alive.expired()) return;
    auto shared = std::make_shared<Result<void>>(std::move(result));
    later([this, number, shared] {
      if (number == number_) reconnected(std::move(*shared));
    });
  };
  backend_.reconnect(std::move(frontend_), std::move(done));
}

void SupervisedWorker::reconnected(Result<void> result) {
  context_.loop.cancel(std::exchange(timer_, 0));
  if (!result) {
    log::error("{}: its new process does not serve it: {}", name(), result.error().what());
    connected_ = false;
    kill();
  } else if (phase_ == Phase::kReplacing) {
    log::info("{}: its new process serves it", name());
    phase_ = Phase::kServing;
    if (!gone_ && !serve_commands()) kill();
  }
  if (gone_) dies();
}

void SupervisedWorker::give_up(const std::string& cause) {
  phase_ = Phase::kEnded;
  commands_.close();
  forget_process();
  backend_.give_up();
  context_.died(name(), cause);
}

void SupervisedWorker::forget_process() {
  for (EventLoop::WatchId* watch : {&channel_watch_, &io_watch_}) {
    if (*watch != 0) context_.loop.unwatch(std::exchange(*watch, 0));
  }
  if (timer_ != 0) context_.loop.cancel(std::exchange(timer_, 0));
  channel_ = PacketSocket(Fd(), kWorkerPackets);
  frontend_ = {};
  io_ = {};
}

}  // namespace crosvm
