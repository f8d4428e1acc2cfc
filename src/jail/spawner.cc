#include "jail/spawner.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "base/socket_pair.h"
#include "base/wait_ready.h"
#include "jail/jail_namespaces.h"
#include "jail/spawner_messages.h"
#include "jail/spawner_process.h"

namespace crosvm {

namespace {
constexpr uint32_t kNoWorker = UINT32_MAX;
}

Spawner::Spawner(Fd socket, pid_t pid) : socket_(std::move(socket), spawner::kPackets), pid_(pid) {}

Result<std::unique_ptr<Spawner>> Spawner::start() {
  auto [ours, theirs] = TRY(make_socket_pair(SOCK_SEQPACKET, "the spawner"));
  Fd ourselves(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (!ourselves) return fail(Error::from_errno("getting a hold on", "the VMM's process"));
  const pid_t pid = ::fork();
  if (pid < 0) {
    const int error = errno;
    const Error what = Error::from_errno("starting", "the spawner of device processes", error);
    return fail(Error(what.code(), what.what() + sandbox_hint(error)));
  }
  if (pid == 0) {
    ours = {};
    run_spawner(std::move(theirs), std::move(ourselves));
  }
  std::unique_ptr<Spawner> self(new Spawner(std::move(ours), pid));
  self->process_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!self->process_) return fail(Error::from_errno("getting a hold on", "the spawner"));
  return self;
}

Spawner::~Spawner() {
  if (watch_ != 0) loop_->unwatch(watch_);
  (void)send(spawner::encode(spawner::Farewell()));  // it may be dead, then it is waited for alone
  socket_ = PacketSocket(Fd(), spawner::kPackets);
  wait_for_exit();
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

/// Until it has ended or is killed.
void Spawner::wait_for_exit() {
  // It waits for workers itself, kills them and removes files.
  constexpr std::chrono::seconds kPatience = kWorkersPatience + std::chrono::seconds(2);
  if (!process_) return;
  const auto late = std::chrono::steady_clock::now() + kPatience;
  const auto waited = wait_ready(process_, POLLIN, late);
  if (waited && *waited == Waited::kReady) return;
  log::warn(
      "the spawner of device processes (pid {}) has not ended within {} seconds; it is killed",
      pid_, kPatience.count());
  ::syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0);
}

Result<void> Spawner::send(const Packet& packet) {
  return with_context(socket_.send(packet), "the spawner of device processes");
}

Result<void> Spawner::spawn(uint32_t worker, const std::string& name, Fd control,
                            WorkerProgram program) {
  Packet packet = spawner::encode(spawner::Spawn{.worker = worker,
                                                 .name = name,
                                                 .program = std::move(program.path),
                                                 .host_network = program.host_network});
  packet.fds.push_back(std::move(control));
  if (program.executable) packet.fds.push_back(std::move(program.executable));
  return send(packet);
}

Result<void> Spawner::kill(uint32_t worker) {
  return send(spawner::encode(spawner::Kill{.worker = worker}));
}

Result<void> Spawner::guard_socket(const std::string& path) {
  struct stat now{};
  if (::lstat(path.c_str(), &now) != 0) return fail(Error::from_errno("looking at", path));
  return send(spawner::encode(
      spawner::GuardSocket{.path = path, .device = now.st_dev, .inode = now.st_ino}));
}

Result<void> Spawner::guard_terminal() { return send(spawner::encode(spawner::GuardTerminal())); }

Result<void> Spawner::supervise(const std::string& policy, const std::string& thread, Fd listener) {
  Packet packet = spawner::encode(spawner::Supervise{.policy = policy, .thread = thread});
  packet.fds.push_back(std::move(listener));
  return send(packet);
}

Result<void> Spawner::watch(EventLoop& loop, Events events) {
  loop_ = &loop;
  events_ = std::move(events);
  watch_ = TRY(loop.watch(socket_.fd(), EPOLLIN, [this](uint32_t) { receive(); }));
  return {};
}

std::optional<uint32_t> Spawner::receive() {
  auto packet = socket_.receive();
  if (!packet || !*packet) {
    loop_->unwatch(std::exchange(watch_, 0));
    events_.lost();
    return std::nullopt;
  }
  auto ended = spawner::decode_ended((*packet)->text);
  if (!ended) {
    log::error("what the spawner says is not clear: {}", ended.error().what());
    return kNoWorker;
  }
  events_.ended(ended->worker, ended->end, std::move(ended->cause));
  return ended->worker;
}

Result<void> Spawner::wait_for_end(uint32_t worker, const Fd* interrupt) {
  const auto late = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (true) {
    const Waited waited = TRY(wait_ready(socket_.fd(), POLLIN, late, interrupt));
    if (waited == Waited::kInterrupted) return fail(interrupted_waiting_for("the spawner"));
    if (waited == Waited::kLate) {
      return fail(Error(std::errc::timed_out, "the spawner does not say what became of it"));
    }
    const std::optional<uint32_t> about = receive();
    if (!about || *about == worker) return {};
  }
}

}  // namespace crosvm
