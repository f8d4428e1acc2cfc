#include "vmm/vcpu_group.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <system_error>

#include "base/format.h"
#include "base/log.h"
#include "base/start_error.h"
#include "hypervisor/vcpu_kick.h"

namespace crosvm {

VcpuGroup::VcpuGroup(IoHandler& io, Events events) : io_(io), events_(std::move(events)) {}

VcpuGroup::~VcpuGroup() { exit(); }

Result<void> VcpuGroup::start(std::vector<std::unique_ptr<Vcpu>> vcpus, const Prelude& prelude) {
  for (auto& vcpu : vcpus) {
    threads_.push_back(std::make_unique<Thread>());
    threads_.back()->vcpu = std::move(vcpu);
  }
  in_guest_ = threads_.size();
  for (auto& entry : threads_) {
    Thread& self = *entry;
    try {  // std::thread has no other way to say that the system refused
      self.thread = std::thread([this, &self, prelude] { run_thread(self, prelude); });
    } catch (const std::system_error& refused) {
      return fail(start_error("starting a thread for", format_text("vCPU {}", self.vcpu->id()),
                              refused.code().value()));
    }
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return started_ == threads_.size(); });
  for (auto& entry : threads_) TRY(std::move(entry->begun));
  return {};
}

void VcpuGroup::suspend() {
  std::lock_guard lock(mutex_);
  change_state(State::kSuspended);
}

void VcpuGroup::suspend(std::function<void(bool stopped)> done) {
  {
    std::lock_guard lock(mutex_);
    change_state(State::kSuspended);
    suspensions_.push_back(std::move(done));
  }
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

void VcpuGroup::resume() {
  {
    std::lock_guard lock(mutex_);
    if (!change_state(State::kRunning)) return;
  }
  settle_suspensions();
  events_.resumed();
}

void VcpuGroup::exit() {
  {
    std::lock_guard lock(mutex_);
    change_state(State::kExiting);
  }
  settle_suspensions();
  for (auto& entry : threads_) {
    if (entry->thread.joinable()) entry->thread.join();
  }
}

std::vector<VcpuGroup::Ids> VcpuGroup::ids() const {
  std::vector<Ids> ids;
  for (const auto& entry : threads_) ids.push_back({.pid = ::getpid(), .tid = entry->tid});
  return ids;
}

bool VcpuGroup::change_state(State state) {
  if (state_ == State::kExiting || state_ == state) return false;
  state_ = state;
  changed_.notify_all();
  if (state == State::kRunning) return true;
  // A thread that is not kickable yet looks at the state before it enters the guest.
  for (auto& entry : threads_) {
    if (entry->kickable) kick_vcpu_thread(*entry->kickable);
  }
  return true;
}

void VcpuGroup::run_thread(Thread& self, const Prelude& prelude) {
  std::string name = format_text("crosvm_vcpu{}", self.vcpu->id());
  ::pthread_setname_np(::pthread_self(), name.c_str());
  self.tid = static_cast<int>(::syscall(SYS_gettid));
  ScopedVcpuKick kick(*self.vcpu);
  if (prelude) self.begun = prelude(format_text("vCPU {}", self.vcpu->id()));
  const bool runs = self.begun.has_value();
  {
    std::lock_guard lock(mutex_);
    self.kickable = ::pthread_self();
    ++started_;
  }
  changed_.notify_all();
  while (runs && wait_until_runnable(self) && run_once(self)) {
  }
  {
    std::lock_guard lock(mutex_);
    self.kickable.reset();
  }
  leave_guest();
}

void VcpuGroup::leave_guest() {
  {
    std::lock_guard lock(mutex_);
    --in_guest_;
  }
  settle_suspensions();
}

bool VcpuGroup::wait_until_runnable(Thread& self) {
  if (state_.load(std::memory_order_acquire) == State::kRunning) return true;
  finish_access(self);
  self.vcpu->notify_paused();
  leave_guest();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return state_ != State::kSuspended; });
  ++in_guest_;
  return state_ == State::kRunning;
}

/// An access that the IoHandler has answered is taken in by the vCPU only when it is run again.
void VcpuGroup::finish_access(Thread& self) {
  constexpr int kMostParts = 64;  // of one access, each of 8 bytes
  for (int i = 0; i < kMostParts; ++i) {
    self.vcpu->set_immediate_exit(true);
    Result<VcpuExit> exit = self.vcpu->run(io_);
    if (!exit || exit->kind != VcpuExit::Kind::kIo) break;
  }
  self.vcpu->set_immediate_exit(false);
}

bool VcpuGroup::run_once(Thread& self) {
  Result<VcpuExit> exit = self.vcpu->run(io_);
  // Cleared before the state is looked at again, so that no kick is lost.
  self.vcpu->set_immediate_exit(false);
  uint32_t id = self.vcpu->id();
  if (!exit) {
    log::error("vCPU {}: {}; {}", id, exit.error().what(), self.vcpu->describe());
    events_.ended(ExitState::kCrash);
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
      events_.ended(ExitState::kStop);
      return false;
    case VcpuExit::Kind::kSystemShutdown:
      events_.ended(ExitState::kStop);
      return false;
    case VcpuExit::Kind::kSystemReset:
      events_.ended(ExitState::kReset);
      return false;
    case VcpuExit::Kind::kSystemCrash:
      events_.ended(ExitState::kGuestPanic);
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
  events_.ended(ExitState::kCrash);
  return false;
}

}  // namespace crosvm
