#include "jail/workers.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <chrono>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "base/packet_socket.h"
#include "jail/worker_order.h"
#include "vhost/vhost_user_backend.h"

namespace crosvm {
namespace {

using Clock = std::chrono::steady_clock;

/// A process that has not begun to serve by then never will; the machine may be very busy.
constexpr std::chrono::seconds kStartPatience{30};

struct SocketPair {
  Fd ours;
  Fd theirs;
};

Result<SocketPair> make_socket_pair(int type) {
  int ends[2];
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail(Error::from_errno("creating", "a socket pair for a device process"));
  }
  return SocketPair{.ours = Fd(ends[0]), .theirs = Fd(ends[1])};
}

Result<Fd> in_memory_file(const SeccompProgram& program, const std::string& name) {
  Fd file(::memfd_create("crosvm-policy", MFD_CLOEXEC));
  if (!file) return fail(Error::from_errno("creating a file for", name));
  TRY(write_full(file, std::as_bytes(program.code()), name));
  return file;
}

Result<void> check_root(const std::string& path) {
  struct stat status{};
  if (!path.starts_with('/')) {
    return fail(Error::invalid(
        format_text("--pivot-root {}: give the absolute path of an empty directory", path)));
  }
  if (::stat(path.c_str(), &status) != 0) {
    return fail(Error::from_errno("--pivot-root: looking at", path));
  }
  if (!S_ISDIR(status.st_mode)) {
    return fail(Error::invalid(format_text(
        "--pivot-root {}: this is no directory; give that of an empty directory", path)));
  }
  return {};
}

}  // namespace

struct Workers::State {
  enum class Phase { kStarting, kServing, kEnded };
  struct Worker {
    std::string name;
    PacketSocket channel;
    Fd frontend;  // until the handshake
    Phase phase = Phase::kStarting;
    std::string cause;  // of its end
  };

  EventLoop& loop;
  std::unique_ptr<Spawner> spawner;
  SandboxOptions options;
  Died died;
  std::vector<Worker> workers;  // a worker's number is its place

  SeccompDefault denied_call() const {
    return options.seccomp_log_failures ? SeccompDefault::kLog : SeccompDefault::kNotify;
  }
  void ended(uint32_t number, std::string cause);
  void lost();
  Result<DeviceInfo> await_answer(Worker& worker, uint32_t number);
};

void Workers::State::ended(uint32_t number, std::string cause) {
  if (number >= workers.size()) return;
  Worker& worker = workers[number];
  const Phase phase = std::exchange(worker.phase, Phase::kEnded);
  worker.cause = std::move(cause);
  if (phase == Phase::kServing) died(worker.name, worker.cause);
}

void Workers::State::lost() {
  for (uint32_t number = 0; number < workers.size(); ++number) {
    if (workers[number].phase != Phase::kEnded) ended(number, "was lost with the spawner");
  }
}

Workers::Workers(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Workers>> Workers::create(EventLoop& loop, std::unique_ptr<Spawner> spawner,
                                                 SandboxOptions options, Died died) {
  if (options.pivot_root) TRY(check_root(*options.pivot_root));
  auto state = std::make_unique<State>(State{.loop = loop,
                                             .spawner = std::move(spawner),
                                             .options = std::move(options),
                                             .died = std::move(died),
                                             .workers = {}});
  State* raw = state.get();
  TRY(raw->spawner->watch(
      loop, {.ended = [raw](uint32_t worker, bool,
                            std::string cause) { raw->ended(worker, std::move(cause)); },
             .lost = [raw] { raw->lost(); }}));
  return std::unique_ptr<Workers>(new Workers(std::move(state)));
}

Workers::~Workers() {
  for (State::Worker& worker : state_->workers) worker.phase = State::Phase::kEnded;
  // Its channel is how a worker that never got as far as serving learns that it may go.
  state_->workers.clear();
}

Spawner& Workers::spawner() { return *state_->spawner; }

Result<uint32_t> Workers::start(const DeviceType& type, const std::string& name,
                                const std::string& text, OpenedDevice& opened) {
  SocketPair channel = TRY(make_socket_pair(SOCK_SEQPACKET));
  SocketPair frontend = TRY(make_socket_pair(SOCK_STREAM));
  WorkerOrder order{.device = std::string(type.name),
                    .name = name,
                    .text = text,
                    .logging = log::options(),
                    .pivot_root = state_->options.pivot_root,
                    .policy = std::string(type.policy),
                    .denied_call = state_->denied_call(),
                    .frontend = std::move(frontend.theirs),
                    .filter = {},
                    .resources = opened.pack()};
  if (state_->options.seccomp_policy_dir) {
    const SeccompProgram program =
        TRY(find_seccomp_policy(type.policy, {.directory = state_->options.seccomp_policy_dir,
                                              .action = state_->denied_call()}));
    order.filter = TRY(in_memory_file(program, order.policy));
  }
  PacketSocket ours(std::move(channel.ours), kWorkerPackets);
  TRY(ours.send(TRY(encode_worker_order(std::move(order)))));
  const auto number = static_cast<uint32_t>(state_->workers.size());
  TRY(state_->spawner->spawn(number, name, std::move(channel.theirs)));
  state_->workers.push_back({.name = name,
                             .channel = std::move(ours),
                             .frontend = std::move(frontend.ours),
                             .phase = State::Phase::kStarting,
                             .cause = {}});
  return number;
}

Result<DeviceInfo> Workers::State::await_answer(Worker& worker, uint32_t number) {
  const Clock::time_point deadline = Clock::now() + kStartPatience;
  pollfd answer{.fd = worker.channel.fd().get(), .events = POLLIN, .revents = 0};
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    const int ready = left.count() > 0 ? ::poll(&answer, 1, static_cast<int>(left.count())) : 0;
    if (ready < 0 && errno != EINTR) return fail(Error::from_errno("waiting for", worker.name));
    if (ready < 0) continue;
    if (ready == 0) {
      return fail(Error(std::errc::timed_out,
                        format_text("its process did not start within {} seconds; the machine may "
                                    "be overloaded",
                                    kStartPatience.count())));
    }
    auto packet = TRY(worker.channel.receive());
    if (packet) return decode_worker_answer(*packet);
    // The spawner knows why.
    TRY(spawner->wait_for_end(number));
    return fail(Error(std::errc::broken_pipe, format_text("its process {}", worker.cause)));
  }
}

Result<std::unique_ptr<DeviceBackend>> Workers::finish(uint32_t number) {
  State* state = state_.get();
  State::Worker& worker = state->workers[number];
  const DeviceInfo info = TRY(with_context(state->await_answer(worker, number), worker.name));
  VhostUserOptions options;
  options.name = worker.name;
  options.device_type = info.device_type;
  options.queue_sizes = info.queue_sizes;
  options.config_length = info.config.size();
  options.disconnected = [state, number](const Error&) {
    // One that lives on without us is of no use. What became of it, the spawner says.
    (void)state->spawner->kill(number);
    return AfterLoss::kGiveUp;
  };
  auto backend =
      TRY(VhostUserBackend::create(state->loop, std::move(worker.frontend), std::move(options)));
  worker.phase = State::Phase::kServing;
  return std::unique_ptr<DeviceBackend>(std::move(backend));
}

}  // namespace crosvm
