#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "hypervisor/hypervisor.h"
#include "vmm/exit_state.h"

namespace crosvm {

/// All vCPU threads of a VM, and what they do now.
class VcpuGroup {
 public:
  struct Ids {
    int pid = 0;
    int tid = 0;
  };

  /// Called on any thread, without a lock held.
  struct Events {
    std::function<void(ExitState)> ended;  ///< a vCPU can or will not go on, which ends the VM
    std::function<void()> resumed;         ///< suspended vCPUs run again
  };

  /// `io` answers port and memory accesses.
  VcpuGroup(IoHandler& io, Events events);
  ~VcpuGroup();  // exits and joins
  VcpuGroup(const VcpuGroup&) = delete;
  VcpuGroup& operator=(const VcpuGroup&) = delete;

  /// What each thread does before all else, given its name.
  using Prelude = std::function<Result<void>(const std::string& name)>;

  /// Starts a thread `crosvm_vcpuN` for each; they run at once, after `prelude` if there is one.
  /// Errors: the system's refusal of a thread, those of `prelude`. Called once.
  Result<void> start(std::vector<std::unique_ptr<Vcpu>> vcpus, const Prelude& prelude = {});

  /// Takes all vCPUs out of the guest, no access half done. Does not wait: a vCPU whose write to a
  /// serial port is held up by its reader comes out when that goes on.
  void suspend();
  /// As above; `done` is called once, on any thread: with true when no vCPU is in the guest, with
  /// false when `resume` or `exit` came first.
  void suspend(std::function<void(bool stopped)> done);
  /// Lets suspended vCPUs run again.
  void resume();
  /// Takes all vCPUs out of the guest for good and joins their threads. Idempotent.
  void exit();

  /// Process and thread id of each vCPU, by index.
  std::vector<Ids> ids() const;

 private:
  enum class State { kRunning, kSuspended, kExiting };
  struct Thread {
    std::unique_ptr<Vcpu> vcpu;
    std::thread thread;
    std::atomic<int> tid{0};
    Result<void> begun;                 // what the prelude said; before started_ counts it
    std::optional<pthread_t> kickable;  // while it may be in the guest; guarded by mutex_
  };

  void run_thread(Thread& self, const Prelude& prelude);
  /// Returns at once while running, after the suspension else; false when it is time to exit.
  bool wait_until_runnable(Thread& self);
  /// Runs the guest until something is to be decided; returns false when this vCPU has ended.
  bool run_once(Thread& self);
  void finish_access(Thread& self);
  /// Changes the state and kicks; returns whether it changed. With mutex_ held.
  bool change_state(State state);
  void leave_guest();
  /// Tells who waits for a suspension, if it is settled now.
  void settle_suspensions();

  IoHandler& io_;
  const Events events_;
  std::vector<std::unique_ptr<Thread>> threads_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<State> state_{State::kRunning};  // written with mutex_ held
  size_t in_guest_ = 0;                        // threads that may enter the guest
  size_t started_ = 0;
  std::vector<std::function<void(bool)>> suspensions_;  // not settled
};

}  // namespace crosvm
