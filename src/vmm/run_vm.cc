#include "vmm/run_vm.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <optional>

#include "base/event_loop.h"
#include "base/format.h"
#include "base/host_cpus.h"
#include "base/log.h"
#include "base/log_limit.h"
#include "jail/check_sandbox_options.h"
#include "jail/workers.h"
#include "vmm/control_requests.h"
#include "vmm/descriptor_limit.h"
#include "vmm/end_signals.h"
#include "vmm/machine.h"

namespace crosvm {
namespace {

/// One run of a VM on this thread: what ends it, and how it ended.
class VmRun {
 public:
  Result<ExitState> run(const Config& config) {
    Result<ExitState> ended = build_and_run(config);
    if (ended) return ended;
    const int signal = EndSignals::received();
    // A device's process that died during the build ends the VM as one that dies later.
    if (signal == 0) return end_ ? Result<ExitState>(*end_) : ended;
    // A signal during the build interrupts what it waits for; that is no failure.
    log::info("ending the VM on SIG{} before it runs: {}", ::sigabbrev_np(signal),
              ended.error().what());
    return ExitState::kStop;
  }

 private:
  Result<ExitState> build_and_run(const Config& config) {
    std::unique_ptr<Spawner> spawner;
    if (config.sandbox) {
      spawner = TRY(Spawner::start());  // while we have one thread
    } else {
      warn_of_ignored(config.sandbox_options, "--");
    }
    loop_ = TRY(EventLoop::create());
    signals_ = TRY(EndSignals::create(*loop_, [this](int number) {
      log::info("ending the VM on SIG{}", ::sigabbrev_np(number));
      end(ExitState::kStop);
    }));
    TRY(listen(config, spawner.get()));
    std::unique_ptr<Workers> workers;
    if (spawner) workers = TRY(make_workers(config, std::move(spawner)));
    const Workers* sandbox = workers.get();  // while the machine has it
    machine_ =
        TRY(build_machine(config, *loop_, signals_->interrupt(), events(), std::move(workers)));
    if (sandbox) TRY(ThreadFilters::give_up_privileges());
    TRY(machine_->start());
    TRY(control_.serve(*loop_, *machine_, [this] { end(ExitState::kStop); }));
    if (sandbox) TRY(sandbox->filters().enter(ThreadFilters::Role::kControl, "control loop"));
    TRY(loop_->run());
    control_.close();
    machine_->stop();
    return *end_;
  }

  Result<void> listen(const Config& config, Spawner* spawner) {
    const EndSignals::Held held;
    TRY(control_.listen(config.socket));
    const std::optional<std::string> path = control_.made_file();
    return spawner && path ? spawner->guard_socket(*path) : Result<void>();
  }

  Result<std::unique_ptr<Workers>> make_workers(const Config& config,
                                                std::unique_ptr<Spawner> spawner) {
    return Workers::create(
        *loop_, std::move(spawner), config.sandbox_options,
        [this](const std::string& device, const std::string& cause) {
          log::error("{}: its process {}; the VM ends with it", device, cause);
          end(ExitState::kCrash);
        },
        &signals_->interrupt());
  }

  /// Called on any thread; what follows happens on the loop, in the order of the calls. A guest can
  /// repeat itself faster than the loop can listen: each kind is on its way to the loop once.
  MachineEvents events() {
    return {
        .ended =
            [this](ExitState state) {
              if (ending_.exchange(true)) return;
              loop_->post([this, state] { end(policy_.from_guest(state)); });
            },
        .panicked =
            [this](PanicCode code) {
              last_panic_ = code;
              if (!panic_posted_.exchange(true)) loop_->post([this] { note_panic(); });
            },
        .left_by_escape =
            [this] {
              log::info("ending the VM: Ctrl-A x was typed");
              end(ExitState::kStop);
            },
    };
  }

  void note_panic() {
    panic_posted_ = false;
    PanicCode code = last_panic_;
    policy_.note_panic(code);
    if (panic_log_.allows()) log::warn("the guest reports {}", name_of(code));
  }

  void end(ExitState state) {
    if (end_) return;  // the first one wins
    end_ = state;
    loop_->stop();
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<EndSignals> signals_;
  ControlRequests control_;
  ExitPolicy policy_;
  std::atomic<bool> ending_ = false;
  std::atomic<bool> panic_posted_ = false;
  std::atomic<PanicCode> last_panic_{};
  LogLimit panic_log_{"reports of guest panics"};
  std::optional<ExitState> end_;
  std::unique_ptr<Machine> machine_;  // first to go: it uses the loop
};

}  // namespace

Result<ExitState> run_vm(const Config& config) {
  if (config.name) ::prctl(PR_SET_NAME, config.name->c_str());
  TRY(raise_descriptor_limit());
  host_cpus();  // read now and kept: later, processes of the VM may see no sysfs
  VmRun run;
  return run.run(config);
}

}  // namespace crosvm
