#include "jail/jailed_services.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/format.h"
#include "base/log.h"
#include "base/packet_socket.h"
#include "base/socket_pair.h"
#include "jail/broker_channel.h"
#include "jail/check_sandbox_options.h"
#include "jail/worker_order.h"
#include "jail/worker_policy.h"

namespace crosvm {

struct JailedServices::State {
  struct Process {
    std::string name;
    PacketSocket channel;  // its end tells the process to end
    EventLoop::WatchId watch = 0;
    bool ended = false;
    bool ready = false;  // it has its device
    bool has_frontend = false;
    BrokerDesk files;
  };

  EventLoop& loop;
  std::unique_ptr<Spawner> spawner;
  SandboxOptions options;
  Events events;
  std::vector<Process> processes;  // its number is its place

  SeccompPolicySource policies() const {
    return {
        .directory = options.seccomp_policy_dir,
        .action = options.seccomp_log_failures ? SeccompDefault::kLog : SeccompDefault::kNotify};
  }
  void hear(uint32_t number);
  void hear_out(uint32_t number);
  void ended(uint32_t number, bool clean, const std::string& cause);
  void lost();
};

/// What a process says is whether it has its device.
void JailedServices::State::hear(uint32_t number) {
  Process& process = processes[number];
  auto packet = process.channel.receive();
  if (packet && *packet && BrokerDesk::concerns(**packet)) {
    if (process.channel.send(process.files.answer(**packet))) return;
    // It has ended, or takes no answers. The spawner tells, as below.
    loop.unwatch(std::exchange(process.watch, 0));
    (void)spawner->kill(number);
    return;
  }
  loop.unwatch(std::exchange(process.watch, 0));
  process.files.close();
  if (!packet || !*packet) return;
  auto answer = decode_worker_answer(**packet);
  process.ready = answer.has_value();
  if (!answer) return log::error("{}: {}", process.name, answer.error().what());
  if (!process.has_frontend && !process.ended && events.ready) events.ready(process.name);
}

/// What a process said before its end may come after the news of it.
void JailedServices::State::hear_out(uint32_t number) {
  Process& process = processes[number];
  while (process.watch != 0) {
    pollfd waiting{.fd = process.channel.fd().get(), .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, 0) != 1) return;
    hear(number);
  }
}

void JailedServices::State::ended(uint32_t number, bool clean, const std::string& cause) {
  if (number >= processes.size() || std::exchange(processes[number].ended, true)) return;
  hear_out(number);
  Process& process = processes[number];
  if (clean) {
    log::info("{}: {}", process.name,
              process.has_frontend ? "its front-end has gone" : "it ended before one came");
  } else {
    log::error("{}: its process {}", process.name, cause);
  }
  events.ended(process.name, clean || (process.ready && process.has_frontend));
}

void JailedServices::State::lost() {
  for (uint32_t number = 0; number < processes.size(); ++number) {
    ended(number, false, "was lost with the spawner");
  }
  events.lost();
}

std::string JailedServices::policy_of(const DeviceType& type) {
  return std::string(type.policy) + "_vhost_user";
}

JailedServices::JailedServices(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<JailedServices>> JailedServices::create(EventLoop& loop,
                                                               std::unique_ptr<Spawner> spawner,
                                                               SandboxOptions options,
                                                               Events events) {
  TRY(check_sandbox_options(options, "--jail "));
  auto state = std::make_unique<State>(State{.loop = loop,
                                             .spawner = std::move(spawner),
                                             .options = std::move(options),
                                             .events = std::move(events),
                                             .processes = {}});
  State* raw = state.get();
  TRY(raw->spawner->watch(loop,
                          {.ended =
                               [raw](uint32_t number, WorkerEnd end, const std::string& cause) {
                                 raw->ended(number, end == WorkerEnd::kClean, cause);
                               },
                           .lost = [raw] { raw->lost(); }}));
  return std::unique_ptr<JailedServices>(new JailedServices(std::move(state)));
}

JailedServices::~JailedServices() {
  for (State::Process& process : state_->processes) {
    if (process.watch != 0) state_->loop.unwatch(process.watch);
  }
  state_->processes.clear();
}

Result<void> JailedServices::check_policy(const DeviceType& type) const {
  TRY(find_worker_policy(policy_of(type), state_->policies()));
  return {};
}

Result<void> JailedServices::guard_socket(const std::string& path) {
  return state_->spawner->guard_socket(path);
}

Result<void> JailedServices::guard_terminal() { return state_->spawner->guard_terminal(); }

Result<void> JailedServices::start(const DeviceType& type, const std::string& name,
                                   const std::string& text, OpenedDevice& opened, Fd frontend) {
  FdPair channel = TRY(make_socket_pair(SOCK_SEQPACKET, "a device process"));
  TRY(set_non_blocking(channel.ours));  // it may ask for files and take no answer
  PacketSocket ours(std::move(channel.ours), kWorkerPackets);
  const SeccompPolicySource policies = state_->policies();
  WorkerOrder order;
  order.device = type.name;
  order.name = name;
  order.text = text;
  order.logging = log::options();
  order.pivot_root = state_->options.pivot_root;
  order.policy = policy_of(type);
  order.denied_call = policies.action;
  const bool has_frontend = static_cast<bool>(frontend);
  order.frontend = std::move(frontend);
  if (policies.directory) {
    const SeccompProgram program = TRY(find_worker_policy(order.policy, policies));
    order.filter = TRY(file_with_program(program, order.policy));
  }
  order.resources = opened.pack();
  TRY(ours.send(TRY(encode_worker_order(std::move(order)))));
  const auto number = static_cast<uint32_t>(state_->processes.size());
  State* state = state_.get();
  const EventLoop::WatchId watch = TRY(
      state->loop.watch(ours.fd(), EPOLLIN, [state, number](uint32_t) { state->hear(number); }));
  state->processes.push_back({.name = name,
                              .channel = std::move(ours),
                              .watch = watch,
                              .ended = false,
                              .ready = false,
                              .has_frontend = has_frontend,
                              .files = BrokerDesk(opened.broker(), false)});
  return state->spawner->spawn(number, name, std::move(channel.theirs));
}

Result<void> JailedServices::give_frontend(const std::string& name, Fd frontend) {
  const auto process =
      std::ranges::find_if(state_->processes, [&](const State::Process& candidate) {
        return candidate.name == name && candidate.ready && !candidate.has_frontend;
      });
  CHECK(process != state_->processes.end());
  process->has_frontend = true;
  return process->channel.send(encode_frontend(std::move(frontend)));
}

}  // namespace crosvm
