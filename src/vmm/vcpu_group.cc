#include "vmm/vcpu_group.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <system_error>

#include "base/format.h"
#include "base/log.h"
#include "hypervisor/vcpu_kick.h"

namespace crosvm {

VcpuGroup::VcpuGroup(IoHandler& io, std::function<void(ExitState)> ended)
    : io_(io), ended_(std::move(ended)) {}

VcpuGroup::~VcpuGroup() { exit(); }

Result<void> VcpuGroup::start(std::vector<std::unique_ptr<Vcpu>> vcpus) {
  for (auto& vcpu : vcpus) {
    threads_.push_back(std::make_unique<Thread>());
    threads_.back()->vcpu = std::move(vcpu);
  }
  in_guest_ = threads_.size();
  for (auto& entry : threads_) {
    Thread& self = *entry;
    try {  // std::thread has no other way to say that the system refused
      self.thread = std::thread([this, &self] { run_thread(self); });
    } catch (const std::system_error& refused) {
      return fail(Error::from_errno("starting a thread for",
                                    format_text("vCPU {}", self.vcpu->id()),
                                    refused.code().value()));
    }
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return started_ == threads_.size(); });
  return {};
}

void VcpuGroup::suspend() { set_state(State::kSuspended); }

void VcpuGroup::suspend(std::function<void(bool stopped)> done) {
  {
    std::lock_guard lock(mutex_);
    suspensions_.push_back(std::move(done));
  }
  suspend();
  settle_suspensions();
}

void VcpuGroup::settle_suspensions() {
  std::vector<std::function<void(bool)>> settled;
  bool stopped = false;
  {
    std::lock_guard lock(mutex_);
    stopped = state_ == State::kSuspended;
    if (stopped && in_guest_ > 0) return;
    settled.swap(suspensions_);
  }
  for (auto& done : settled) done(stopped);
}

bool VcpuGroup::resume() { return set_state(State::kRunning); }

void VcpuGroup::exit() {
  set_state(State::kExiting);
  for (auto& entry : threads_) {
    if (entry->thread.joinable()) entry->thread.join();
  }
}

std::vector<VcpuGroup::Ids> VcpuGroup::ids() const {
  std::vector<Ids> ids;
  for (const auto& entry : threads_) ids.push_back({.pid = ::getpid(), .tid = entry->tid});
  return ids;
}

bool VcpuGroup::set_state(State state) {
  {
    std::lock_guard lock(mutex_);
    if (state_ == State::kExiting || state_ == state) return false;
    state_ = state;
  }
  changed_.notify_all();
  if (state != State::kRunning) kick_all();
  if (state != State::kSuspended) settle_suspensions();
  return true;
}

void VcpuGroup::kick_all() {
  for (auto& entry : threads_) {
    if (entry->thread.joinable()) kick_vcpu_thread(entry->thread.native_handle());
  }
}

void VcpuGroup::run_thread(Thread& self) {
  std::string name = format_text("crosvm_vcpu{}", self.vcpu->id());
  ::pthread_setname_np(::pthread_self(), name.c_str());
  self.tid = static_cast<int>(::syscall(SYS_gettid));
  ScopedVcpuKick kick(*self.vcpu);
  {
    std::lock_guard lock(mutex_);
    ++started_;
  }
  changed_.notify_all();
  while (wait_until_runnable() && run_once(self)) {
  }
  {
    std::lock_guard lock(mutex_);
    --in_guest_;
  }
  settle_suspensions();
}

bool VcpuGroup::wait_until_runnable() {
  if (state_.load(std::memory_order_acquire) == State::kRunning) return true;
  {
    std::lock_guard lock(mutex_);
    --in_guest_;
  }
  settle_suspensions();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return state_ != State::kSuspended; });
  ++in_guest_;
  return state_ == State::kRunning;
}

bool VcpuGroup::run_once(Thread& self) {
  Result<VcpuExit> exit = self.vcpu->run(io_);
  // Cleared before the state is looked at again, so that no kick is lost.
  self.vcpu->set_immediate_exit(false);
  uint32_t id = self.vcpu->id();
  if (!exit) {
    log::error("vCPU {}: {}; {}", id, exit.error().what(), self.vcpu->describe());
    ended_(ExitState::kCrash);
    return false;
  }
  switch (exit->kind) {
    case VcpuExit::Kind::kIo:
    case VcpuExit::Kind::kInterrupted:
    case VcpuExit::Kind::kHlt:
    case VcpuExit::Kind::kIrqWindow:
    case VcpuExit::Kind::kDebug:
    case VcpuExit::Kind::kIoapicEoi:
      return true;
    case VcpuExit::Kind::kShutdown:
      log::warn("vCPU {}: triple fault; {}", id, self.vcpu->describe());
      ended_(ExitState::kStop);
      return false;
    case VcpuExit::Kind::kSystemShutdown:
      ended_(ExitState::kStop);
      return false;
    case VcpuExit::Kind::kSystemReset:
      ended_(ExitState::kReset);
      return false;
    case VcpuExit::Kind::kSystemCrash:
      ended_(ExitState::kGuestPanic);
      return false;
    case VcpuExit::Kind::kFailEntry:
      log::error("vCPU {}: the hardware refused to enter the guest, reason {:#x}; {}", id,
                 exit->detail, self.vcpu->describe());
      break;
    case VcpuExit::Kind::kInternalError:
      log::error(
          "vCPU {}: the hypervisor met an instruction or state it cannot handle (internal error "
          "{}); "
          "{}; `crosvm doctor` tells whether this host can run stock kernels",
          id, exit->detail, self.vcpu->describe());
      break;
    case VcpuExit::Kind::kUnknown:
      log::error("vCPU {}: exit for the unknown reason {}; {}", id, exit->detail,
                 self.vcpu->describe());
      break;
  }
  ended_(ExitState::kCrash);
  return false;
}

}  // namespace crosvm
