#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
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

  /// `io` answers port and memory accesses. `ended` is called on a vCPU's thread when that vCPU can
  /// or will not go on; any vCPU ending ends the VM.
  VcpuGroup(IoHandler& io, std::function<void(ExitState)> ended);
  ~VcpuGroup();  // exits and joins
  VcpuGroup(const VcpuGroup&) = delete;
  VcpuGroup& operator=(const VcpuGroup&) = delete;

  /// Starts a thread `crosvm_vcpuN` for each; they run at once. Errors: the system's refusal of a
  /// thread. Called once.
  Result<void> start(std::vector<std::unique_ptr<Vcpu>> vcpus);

  /// Stops all vCPUs between two instructions. Does not wait: a vCPU whose write to a serial port
  /// is held up by its reader comes out when that goes on.
  void suspend();
  /// As above; `done` is called once, on any thread: with true when no vCPU is in the guest, with
  /// false when `resume` or `exit` came first.
  void suspend(std::function<void(bool stopped)> done);
  /// Lets suspended vCPUs run again; whether they were suspended.
  bool resume();
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
  };

  void run_thread(Thread& self);
  bool wait_until_runnable();
  /// Runs the guest until something is to be decided; returns false when this vCPU has ended.
  bool run_once(Thread& self);
  bool set_state(State state);
  /// Tells who waits for a suspension, if it is settled now. Takes the lock; calls without it.
  void settle_suspensions();
  void kick_all();

  IoHandler& io_;
  std::function<void(ExitState)> ended_;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::atomic<State> state_{State::kRunning};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  size_t in_guest_ = 0;  // threads that may enter the guest; guarded by mutex_
  std::vector<std::function<void(bool)>> suspensions_;  // not settled; guarded by mutex_
  size_t started_ = 0;  // threads that can be kicked; guarded by mutex_
};

}  // namespace crosvm
