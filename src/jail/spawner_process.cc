#include "jail/spawner_process.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/format.h"
#include "base/log.h"
#include "base/packet_socket.h"
#include "jail/empty_network.h"
#include "jail/spawned_worker.h"
#include "jail/spawner_messages.h"
#include "jail/vmm_threads.h"

namespace crosvm {
namespace {

/// What the VMM asked to be cleaned up after its death.
struct Guarded {
  std::vector<spawner::GuardSocket> sockets;
  bool terminal = false;
};

/// The settings of the terminal on standard input, if it is one.
std::optional<termios> terminal_settings() {
  termios settings{};
  if (::tcgetattr(STDIN_FILENO, &settings) != 0) return std::nullopt;
  return settings;
}

/// All that it keeps open beside the standard descriptors.
struct SpawnerDescriptors {
  Fd vmm;          // the VMM's end of the packet socket is the other one
  Fd vmm_process;  // its pidfd
  Fd program;      // what workers execute
};

class SpawnerProcess {
 public:
  SpawnerProcess(std::unique_ptr<EventLoop> loop, SpawnerDescriptors fds)
      : loop_(std::move(loop)),
        vmm_(std::move(fds.vmm), spawner::kPackets),
        program_(std::move(fds.program)),
        vmm_threads_(*loop_, std::move(fds.vmm_process)) {}

  Result<void> run() {
    vmm_watch_ = TRY(loop_->watch(vmm_.fd(), EPOLLIN, [this](uint32_t) { hear(); }));
    return loop_->run();
  }

  /// After the VMM: nothing of it remains.
  void clean_up() {
    if (farewell_) await_workers();
    for (auto& [number, worker] : workers_) worker->kill();
    for (auto& [number, worker] : workers_) worker->wait();
    workers_.clear();
    // Also after a farewell: the VMM, which has no privileges by then, may not have been able to.
    for (const spawner::GuardSocket& socket : guarded_.sockets) {
      struct stat now{};
      if (::lstat(socket.path.c_str(), &now) != 0) continue;
      // The VMM's word alone must not be enough to remove just any file.
      if (S_ISSOCK(now.st_mode) && now.st_dev == socket.device && now.st_ino == socket.inode) {
        ::unlink(socket.path.c_str());
      }
    }
    if (!farewell_ && guarded_.terminal && terminal_)
      ::tcsetattr(STDIN_FILENO, TCSANOW, &*terminal_);
  }

 private:
  /// Those that were let go of in good order write what they have and end by themselves.
  void await_workers() {
    const auto late = EventLoop::Clock::now() + kWorkersPatience;
    while (!workers_.empty() && EventLoop::Clock::now() < late) {
      if (!loop_->run_once(std::chrono::milliseconds(100))) return;
    }
  }

  void hear() {
    auto packet = vmm_.receive();
    if (!packet || !*packet) {
      loop_->unwatch(vmm_watch_);
      return loop_->stop();  // nobody to tell
    }
    auto request = spawner::decode_request((*packet)->text);
    if (!request) return log::error("{}", request.error().what());
    std::vector<Fd>& fds = (*packet)->fds;
    std::visit([&](const auto& asked) { take(asked, fds); }, *request);
  }

  void take(const spawner::Spawn& spawn, std::vector<Fd>& fds) {
    if (fds.empty()) return log::error("a worker to start comes with a descriptor");
    const WorkerExecutable program{.fd = fds.size() > 1 ? fds[1] : program_, .path = spawn.program};
    if (auto started = start(spawn, std::move(fds[0]), program); !started) {
      ended(spawn.worker, WorkerEnd::kNotStarted,
            format_text("could not be started: {}", started.error().what()));
    }
  }
  void take(const spawner::Kill& kill, std::vector<Fd>&) {
    if (auto worker = workers_.find(kill.worker); worker != workers_.end()) worker->second->kill();
  }
  void take(const spawner::GuardSocket& socket, std::vector<Fd>&) {
    guarded_.sockets.push_back(socket);
  }
  void take(const spawner::GuardTerminal&, std::vector<Fd>&) { guarded_.terminal = true; }
  void take(const spawner::Supervise& thread, std::vector<Fd>& fds) {
    if (fds.size() != 1) return log::error("a filter to supervise comes with one descriptor");
    vmm_threads_.supervise(thread.policy, thread.thread, std::move(fds.front()));
  }
  void take(const spawner::Farewell&, std::vector<Fd>&) { farewell_ = true; }

  Result<void> start(const spawner::Spawn& spawn, Fd channel, const WorkerExecutable& program) {
    TRY(choose_network(spawn.host_network));
    const uint32_t number = spawn.worker;
    auto worker =
        TRY(SpawnedWorker::start(*loop_, program, spawn.name, std::move(channel),
                                 [this, number](WorkerEnd end, const std::string& cause) {
                                   ended(number, end, cause);
                                   // Not at once: it is the worker that is calling.
                                   loop_->post([this, number] { workers_.erase(number); });
                                 }));
    workers_.insert_or_assign(number, std::move(worker));
    return {};
  }

  /// There is no way back from the empty network, so those that are not to be in it come first.
  Result<void> choose_network(bool of_the_host) {
    if (of_the_host && empty_network_) {
      return fail(
          Error::invalid("it needs the host's network, which the spawner has left already"));
    }
    if (of_the_host || empty_network_) return {};
    TRY(enter_empty_network());
    empty_network_ = true;
    return {};
  }

  void ended(uint32_t worker, WorkerEnd end, const std::string& cause) {
    // It has no room only when the VMM does not listen any more.
    (void)vmm_.send(spawner::encode({.worker = worker, .end = end, .cause = cause}));
  }

  std::unique_ptr<EventLoop> loop_;
  PacketSocket vmm_;
  Fd program_;
  VmmThreads vmm_threads_;
  EventLoop::WatchId vmm_watch_ = 0;
  bool empty_network_ = false;
  bool farewell_ = false;
  std::optional<termios> terminal_ = terminal_settings();
  Guarded guarded_;
  std::map<uint32_t, std::unique_ptr<SpawnedWorker>> workers_;
};

/// It ends with the VMM and not with what is typed or sent to the whole process group. Background
/// writes to the terminal's settings must not stop it.
void ignore_signals() {
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTTOU, SIGUSR1, SIGUSR2}) {
    ::signal(number, SIG_IGN);
  }
  // Where it was ignored, as some who start us leave it, nobody would hear of a worker's end.
  ::signal(SIGCHLD, SIG_DFL);
}

/// Everything else that was open at the fork belongs to the VMM alone.
Result<void> close_all_but(SpawnerDescriptors& fds) {
  int place = 3;
  for (Fd* fd : {&fds.vmm, &fds.vmm_process, &fds.program}) {
    Fd high(out_of_the_way(fd->get()));
    if (!high) return fail(Error::from_errno("arranging", "the spawner's descriptors"));
    *fd = std::move(high);
  }
  for (Fd* fd : {&fds.vmm, &fds.vmm_process, &fds.program}) {
    ::dup3(fd->get(), place, O_CLOEXEC);
    *fd = Fd(place++);
  }
  ::close_range(static_cast<unsigned>(place), ~0U, 0);
  return {};
}

Result<void> serve(Fd vmm, Fd vmm_process) {
  Fd program(::open("/proc/self/exe", O_PATH | O_CLOEXEC));
  if (!program) return fail(Error::from_errno("opening", "/proc/self/exe, our own program"));
  SpawnerDescriptors fds{
      .vmm = std::move(vmm), .vmm_process = std::move(vmm_process), .program = std::move(program)};
  TRY(close_all_but(fds));
  SpawnerProcess process(TRY(EventLoop::create()), std::move(fds));
  auto ran = process.run();
  process.clean_up();
  return ran;
}

}  // namespace

int out_of_the_way(int fd) {
  constexpr int kOutOfTheWay = 16;
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, kOutOfTheWay);
  if (copy < 0 && errno == EINVAL) errno = EMFILE;  // the limit is below it
  return copy;
}

void run_spawner(Fd vmm, Fd vmm_process) {
  ::prctl(PR_SET_NAME, "crosvm-spawner");
  ignore_signals();
  // Nor with the group: who kills all of it leaves files that must go.
  (void)::setpgid(0, 0);
  auto served = serve(std::move(vmm), std::move(vmm_process));
  if (!served) log::error("spawner: {}", served.error().what());
  ::_exit(served ? 0 : 1);
}

}  // namespace crosvm
