#include "jail/workers.h"

#include <fcntl.h>

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/companion_program.h"
#include "base/fd.h"
#include "base/format.h"
#include "base/log.h"
#include "jail/check_sandbox_options.h"
#include "jail/supervised_worker.h"
#include "jail/worker_order.h"
#include "jail/worker_policy.h"

namespace crosvm {
struct Workers::State {
  EventLoop& loop;
  std::unique_ptr<Spawner> spawner;
  SandboxOptions options;
  ThreadFilters filters;  // for the VMM's own threads
  Died died;
  const Fd* interrupt;
  uint32_t next_number = 0;  // of a process
  std::vector<std::unique_ptr<SupervisedWorker>> workers;

  SeccompDefault denied_call() const {
    return options.seccomp_log_failures ? SeccompDefault::kLog : SeccompDefault::kNotify;
  }
  void ended(uint32_t number, WorkerEnd end, std::string cause);
  void lost();
  Result<WorkerOrder> order_for(const DeviceType& type, const std::string& name,
                                const std::string& text, OpenedDevice& opened) const;
};

namespace {

/// The lines of resolv.conf(5) but those that name an interface ("fe80::1%eth0"): who looks up its
/// number needs calls that the process may not make.
std::string without_scopes(std::string_view text, const std::string& device) {
  std::string kept;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.contains('%')) {
      log::warn("{}: /etc/resolv.conf: `{}` is left out: it is reached by one interface alone",
                device, line);
    } else {
      kept.append(line).append("\n");
    }
  }
  return kept;
}

/// Who resolves names for this host, as libraries read it; empty where that is not known.
std::string read_resolv_conf(const std::string& device) {
  constexpr size_t kMostBytes = 16 << 10;
  const std::string path = "/etc/resolv.conf";
  std::string text(kMostBytes, '\0');
  auto file = open_path(path, O_RDONLY);
  auto got = file ? read_full(*file, std::as_writable_bytes(std::span(text)), path)
                  : Result<size_t>(fail(std::move(file).error()));
  if (!got) log::warn("{}: the guest cannot look up names: {}", device, got.error().what());
  text.resize(got.value_or(0));
  std::string kept = without_scopes(text, device);
  if (got && !kept.contains("nameserver")) {
    log::warn("{}: the guest cannot look up names: {} has no `nameserver` that can serve it",
              device, path);
  }
  return kept;
}

Result<WorkerProgram> program_for(const DeviceType& type) {
  WorkerProgram program{.executable = {}, .path = {}, .host_network = type.host_network};
  if (type.program.empty()) return program;
  program.path = TRY(find_companion_program(type.program));
  program.executable = TRY(open_path(program.path, O_PATH));
  return program;
}

}  // namespace

void Workers::State::ended(uint32_t number, WorkerEnd end, std::string cause) {
  for (auto& worker : workers) {
    if (worker->number() == number) return worker->ended(end, std::move(cause));
  }
}

void Workers::State::lost() {
  for (auto& worker : workers) worker->lost();
}

Result<WorkerOrder> Workers::State::order_for(const DeviceType& type, const std::string& name,
                                              const std::string& text, OpenedDevice& opened) const {
  WorkerOrder order{.device = std::string(type.name),
                    .name = name,
                    .text = text,
                    .logging = log::options(),
                    .pivot_root = options.pivot_root,
                    .resolv_conf = type.host_network ? read_resolv_conf(name) : "",
                    .policy = std::string(type.policy),
                    .denied_call = denied_call(),
                    .restarts = false,
                    .frontend = {},
                    .filter = {},
                    .io_witness = {},
                    .resources = opened.pack()};
  if (!options.seccomp_policy_dir) return order;
  const SeccompProgram program = TRY(find_worker_policy(
      type.policy, {.directory = options.seccomp_policy_dir, .action = denied_call()}));
  order.filter = TRY(file_with_program(program, order.policy));
  return order;
}

Workers::Workers(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<Workers>> Workers::create(EventLoop& loop, std::unique_ptr<Spawner> spawner,
                                                 SandboxOptions options, Died died,
                                                 const Fd* interrupt) {
  TRY(check_sandbox_options(options, "--"));
  ThreadFilters filters = TRY(ThreadFilters::prepare(*spawner, options));
  auto state = std::make_unique<State>(State{.loop = loop,
                                             .spawner = std::move(spawner),
                                             .options = std::move(options),
                                             .filters = std::move(filters),
                                             .died = std::move(died),
                                             .interrupt = interrupt,
                                             .workers = {}});
  State* raw = state.get();
  TRY(raw->spawner->watch(
      loop, {.ended = [raw](uint32_t worker, WorkerEnd end,
                            std::string cause) { raw->ended(worker, end, std::move(cause)); },
             .lost = [raw] { raw->lost(); }}));
  return std::unique_ptr<Workers>(new Workers(std::move(state)));
}

Workers::~Workers() {
  // Its channel is how a worker that never got as far as serving learns that it may go.
  state_->workers.clear();
}

Spawner& Workers::spawner() { return *state_->spawner; }

const ThreadFilters& Workers::filters() const { return state_->filters; }

Result<uint32_t> Workers::start(const DeviceType& type, const std::string& name,
                                const std::string& text, OpenedDevice& opened) {
  State* state = state_.get();
  const auto& kinds = state->options.restart_devices;
  const bool restarts = type.idempotent && std::ranges::find(kinds, type.name) != kinds.end();
  auto worker = std::make_unique<SupervisedWorker>(
      SupervisedWorker::Context{
          .loop = state->loop,
          .spawner = *state->spawner,
          .next_number = [state] { return state->next_number++; },
          .died = [state](const std::string& device,
                          const std::string& cause) { state->died(device, cause); },
          .interrupt = state->interrupt},
      SupervisedWorker::Rules{.restarts = restarts,
                              .restarts_a_minute = state->options.restarts_a_minute},
      TRY(state->order_for(type, name, text, opened)), TRY(with_context(program_for(type), name)),
      opened.broker());
  TRY(worker->start());
  state->workers.push_back(std::move(worker));
  return static_cast<uint32_t>(state->workers.size() - 1);
}

Result<std::unique_ptr<DeviceBackend>> Workers::finish(uint32_t worker) {
  return state_->workers[worker]->finish();
}

}  // namespace crosvm
