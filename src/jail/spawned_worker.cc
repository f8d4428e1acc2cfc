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
#include <span>
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
  int told;  // hears of a failure; closes when the program runs
  char* const* arguments;
  char* const* environment;
};

/// What a child tells of a failure to execute.
struct ExecutionFailure {
  int error;
  bool arranged;  // its descriptors are where they belong
};

[[noreturn]] void tell(int told, bool arranged) {
  const ExecutionFailure failure{.error = errno, .arranged = arranged};
  (void)!::write(told, &failure, sizeof(failure));
  ::_exit(127);
}

/// Moves the descriptors to where a worker looks for them, first out of each other's way.
[[noreturn]] void execute_program(const Execution& run) {
  // A worker that heeds nobody ends with us, however we end; we are one thread.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int told = out_of_the_way(run.told);
  if (told < 0) tell(run.told, false);
  const int program = out_of_the_way(run.program);
  const int null = out_of_the_way(run.null);
  const int log = out_of_the_way(run.log);
  const int channel = out_of_the_way(run.channel);
  const int listener = out_of_the_way(run.listener);
  if (program < 0 || null < 0 || log < 0 || channel < 0 || listener < 0 ||
      ::dup2(null, STDIN_FILENO) < 0 || ::dup2(null, STDOUT_FILENO) < 0 ||
      ::dup2(log, STDERR_FILENO) < 0 || ::dup2(channel, kWorkerChannel) < 0 ||
      ::dup2(listener, kWorkerListener) < 0 ||
      ::close_range(kWorkerListener + 1, ~0U, CLOSE_RANGE_CLOEXEC) != 0) {
    tell(told, false);
  }
  ::syscall(SYS_execveat, program, "", run.arguments, run.environment, AT_EMPTY_PATH);
  tell(told, true);
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

/// What helps where the program at `path` does not run.
std::string remedy(const std::string& path) {
  if (path.empty()) return {};
  return format_text(
      "; install {} as it was built with this crosvm, and the libraries that `ldd {}` does not "
      "find",
      path, path);
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

Result<std::unique_ptr<SpawnedWorker>> SpawnedWorker::start(EventLoop& loop,
                                                            const WorkerExecutable& program,
                                                            std::string name, Fd channel,
                                                            Ended ended) {
  std::unique_ptr<SpawnedWorker> worker(new SpawnedWorker(loop, std::move(name), std::move(ended)));
  FdPair listener = TRY(make_socket_pair(SOCK_SEQPACKET, "a worker"));
  TRY(worker->execute(program, channel, listener.theirs));
  worker->listener_channel_ = PacketSocket(std::move(listener.ours), kListenerPackets);
  TRY(worker->watch());
  return worker;
}

Result<void> SpawnedWorker::execute(const WorkerExecutable& program, const Fd& channel,
                                    const Fd& listener) {
  program_ = program.path;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(Error::from_errno("creating", "a pipe"));
  const Fd hear(ends[0]);
  Fd told(ends[1]);
  Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return fail(Error::from_errno("opening", "/dev/null"));
  Fd log = write_only_stderr();

  std::string called = kWorkerProgram;
  std::string label = name_;
  char* arguments[] = {called.data(), label.data(), nullptr};
  std::vector<char*> environment = worker_environment();
  const Execution run{.program = program.fd.get(),
                      .null = null.get(),
                      .log = log.get(),
                      .channel = channel.get(),
                      .listener = listener.get(),
                      .told = told.get(),
                      .arguments = arguments,
                      .environment = environment.data()};
  NamespacedProcess process =
      TRY(clone_into_namespaces([&run] { execute_program(run); }, ChildMemory::kShared));
  pidfd_ = std::move(process.pidfd);
  told = {};
  ExecutionFailure failure = {};
  const size_t heard =
      TRY(read_full(hear, std::as_writable_bytes(std::span(&failure, 1)), "a child's pipe"));
  if (heard == 0) return {};
  if (!failure.arranged) {
    return fail(Error::from_errno("arranging", "its descriptors", failure.error));
  }
  const Error what =
      Error::from_errno("executing", program_.empty() ? "crosvm" : program_, failure.error);
  return fail(Error(what.code(), what.what() + remedy(program_)));
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
  prepared_ = packet && *packet;
  if (!prepared_ || (*packet)->fds.size() != 1) return;  // it is dead, or has none to give
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
  if (channel_watch_ != 0) take_listener();  // the news of its end may come first
  const bool clean = ended.si_code == CLD_EXITED && ended.si_status == 0;
  std::string cause = describe(ended);
  if (!denied_.empty()) cause = format_text("was ended as it called {}, which is denied", denied_);
  if (!prepared_) cause += format_text(" before it could begin{}", remedy(program_));
  const WorkerEnd end = clean ? WorkerEnd::kClean : WorkerEnd::kDied;
  ended_(prepared_ ? end : WorkerEnd::kNotStarted, std::move(cause));
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
