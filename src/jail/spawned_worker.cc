#include "jail/spawned_worker.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "base/format.h"
#include "base/log.h"
#include "base/socket_pair.h"
#include "jail/denied_call.h"
#include "jail/jail_namespaces.h"
#include "jail/spawner_process.h"

namespace crosvm {
namespace {

/// A file that standard error goes to has the lines of all processes: each appends its own. What is
/// opened anew has its own place in the file, so the open file that we share with the VMM must
/// append as well, or it would overwrite what a worker has written.
void append_to_log() {
  struct stat status{};
  if (::fstat(STDERR_FILENO, &status) != 0 || !S_ISREG(status.st_mode)) return;
  const int flags = ::fcntl(STDERR_FILENO, F_GETFL);
  if (flags >= 0) ::fcntl(STDERR_FILENO, F_SETFL, flags | O_APPEND);
}

/// Standard error for the worker, which must not be able to read what is typed at a terminal. Where
/// it cannot be opened anew, as a socket, it is passed on as it is.
Fd write_only_stderr() {
  append_to_log();
  Fd fd(::open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NOCTTY | O_CLOEXEC));
  return fd ? std::move(fd) : Fd(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0));
}

/// What the child needs between clone and exec, where only system calls are safe.
struct Execution {
  int program;
  int null;
  int log;
  int channel;
  int listener;
  char* const* arguments;
  char* const* environment;
};

/// Moves the descriptors to where a worker looks for them, first out of each other's way.
[[noreturn]] void execute(const Execution& run) {
  constexpr int kOutOfTheWay = 16;
  // A worker that heeds nobody ends with us, however we end; we are one thread.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int program = ::fcntl(run.program, F_DUPFD_CLOEXEC, kOutOfTheWay);
  const int null = ::fcntl(run.null, F_DUPFD_CLOEXEC, kOutOfTheWay);
  const int log = ::fcntl(run.log, F_DUPFD_CLOEXEC, kOutOfTheWay);
  const int channel = ::fcntl(run.channel, F_DUPFD_CLOEXEC, kOutOfTheWay);
  const int listener = ::fcntl(run.listener, F_DUPFD_CLOEXEC, kOutOfTheWay);
  if (::dup2(null, STDIN_FILENO) < 0 || ::dup2(null, STDOUT_FILENO) < 0 ||
      ::dup2(log, STDERR_FILENO) < 0 || ::dup2(channel, kWorkerChannel) < 0 ||
      ::dup2(listener, kWorkerListener) < 0 ||
      ::close_range(kWorkerListener + 1, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    ::_exit(126);
  }
  ::syscall(SYS_execveat, program, "", run.arguments, run.environment, AT_EMPTY_PATH);
  ::_exit(127);
}

/// Sanitizers take their options from the environment; nothing else is for a worker to know. The
/// check for leaks starts a process, which no policy allows.
std::vector<char*> worker_environment() {
  std::vector<char*> kept;
#ifdef CROSVM_SANITIZE
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::strstr(*variable, "SAN_OPTIONS=") && !std::strstr(*variable, "ASAN_OPTIONS=")) {
      kept.push_back(*variable);
    }
  }
  static char no_leak_check[] = "ASAN_OPTIONS=detect_leaks=0";
  kept.push_back(no_leak_check);
#endif
  kept.push_back(nullptr);
  return kept;
}

std::string describe(const siginfo_t& ended) {
  if (ended.si_code == CLD_EXITED) return format_text("ended with status {}", ended.si_status);
  const char* name = ::sigabbrev_np(ended.si_status);
  if (name) return format_text("was killed by SIG{}", name);
  return format_text("was killed by signal {}", ended.si_status);
}

}  // namespace

SpawnedWorker::SpawnedWorker(EventLoop& loop, std::string name, Ended ended)
    : loop_(loop),
      name_(std::move(name)),
      ended_(std::move(ended)),
      listener_channel_(Fd(), kListenerPackets) {}

Result<std::unique_ptr<SpawnedWorker>> SpawnedWorker::start(EventLoop& loop, const Fd& program,
                                                            std::string name, Fd channel,
                                                            Ended ended) {
  std::unique_ptr<SpawnedWorker> worker(new SpawnedWorker(loop, std::move(name), std::move(ended)));
  FdPair listener = TRY(make_socket_pair(SOCK_SEQPACKET, "a worker"));
  Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return fail(Error::from_errno("opening", "/dev/null"));
  Fd log = write_only_stderr();

  std::string called = kWorkerProgram;
  std::string label = worker->name_;
  char* arguments[] = {called.data(), label.data(), nullptr};
  std::vector<char*> environment = worker_environment();
  const Execution run{.program = program.get(),
                      .null = null.get(),
                      .log = log.get(),
                      .channel = channel.get(),
                      .listener = listener.theirs.get(),
                      .arguments = arguments,
                      .environment = environment.data()};
  NamespacedProcess process =
      TRY(clone_into_namespaces([&run] { execute(run); }, ChildMemory::kShared));
  worker->pidfd_ = std::move(process.pidfd);
  worker->listener_channel_ = PacketSocket(std::move(listener.ours), kListenerPackets);
  TRY(worker->watch());
  return worker;
}

SpawnedWorker::~SpawnedWorker() {
  kill();
  wait();
}

Result<void> SpawnedWorker::watch() {
  pid_watch_ = TRY(loop_.watch(pidfd_, EPOLLIN, [this](uint32_t) { reap(); }));
  channel_watch_ =
      TRY(loop_.watch(listener_channel_.fd(), EPOLLIN, [this](uint32_t) { take_listener(); }));
  return {};
}

void SpawnedWorker::unwatch(EventLoop::WatchId& watch) {
  if (const EventLoop::WatchId id = std::exchange(watch, 0); id != 0) loop_.unwatch(id);
}

void SpawnedWorker::take_listener() {
  auto packet = listener_channel_.receive();
  unwatch(channel_watch_);
  listener_channel_ = PacketSocket(Fd(), kListenerPackets);
  if (!packet || !*packet || (*packet)->fds.size() != 1) return;  // it has none to give, or is dead
  listener_ = std::move((*packet)->fds.front());
  auto watched = loop_.watch(listener_, EPOLLIN, [this](uint32_t events) { hear_denied(events); });
  if (watched) {
    listener_watch_ = *watched;
  } else {
    log::error("{}: its denied system calls cannot be watched for, it is ended: {}", name_,
               watched.error().what());
    kill();
  }
}

void SpawnedWorker::hear_denied(uint32_t events) {
  if ((events & EPOLLIN) == 0) return unwatch(listener_watch_);  // nobody is left who could call
  auto denied = receive_denied_call(listener_);
  if (!denied && denied.error().code() != std::errc::no_such_file_or_directory) {
    log::error("{}: its process called what its policy does not allow, and is ended: {}", name_,
               denied.error().what());
  }
  if (denied && denied_.empty()) {
    denied_ = denied->name;
    log::error("{}: its process {}", name_, describe_denied_call(*denied, "", "and is ended"));
  }
  kill();
}

void SpawnedWorker::kill() {
  if (pidfd_) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
}

void SpawnedWorker::reap() {
  siginfo_t ended{};
  const int waited = ::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &ended, WEXITED | WNOHANG);
  if (waited == 0 && ended.si_pid == 0) return;
  if (waited != 0) {  // nothing is left to learn of it
    ended.si_code = CLD_EXITED;
    ended.si_status = -1;
  }
  unwatch(pid_watch_);
  pidfd_ = {};
  const bool clean = ended.si_code == CLD_EXITED && ended.si_status == 0;
  std::string cause = describe(ended);
  if (!denied_.empty()) cause = format_text("was ended as it called {}, which is denied", denied_);
  ended_(clean, std::move(cause));
}

void SpawnedWorker::wait() {
  unwatch(pid_watch_);
  unwatch(channel_watch_);
  unwatch(listener_watch_);
  if (!pidfd_) return;
  siginfo_t ended{};
  while (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &ended, WEXITED) != 0 &&
         errno == EINTR) {
  }
  pidfd_ = {};
}

}  // namespace crosvm
