#include "hypervisor/vcpu_kick.h"

#include <signal.h>

#include <array>
#include <mutex>

namespace crosvm {
namespace {

// Written by the thread itself only, but read by its signal handler at any moment.
thread_local std::atomic<Vcpu*> running_vcpu = nullptr;

/// The second is for when the user's queue of signals (RLIMIT_SIGPENDING) is full, which another
/// process of the user may have done: real-time signals are refused then, others are not.
std::array<int, 2> kick_signals() { return {SIGRTMIN, SIGURG}; }

void on_kick(int) {
  if (Vcpu* const vcpu = running_vcpu.load(std::memory_order_relaxed)) {
    vcpu->set_immediate_exit(true);
  }
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_handler = on_kick;  // without SA_RESTART: a system call must come back, too
    for (int number : kick_signals()) CHECK(::sigaction(number, &action, nullptr) == 0);
  });
}

}  // namespace

ScopedVcpuKick::ScopedVcpuKick(Vcpu& vcpu) {
  install_handler();
  CHECK(running_vcpu.load() == nullptr);
  running_vcpu = &vcpu;
  sigset_t set;
  ::sigemptyset(&set);
  for (int number : kick_signals()) ::sigaddset(&set, number);
  CHECK(::pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0);
}

ScopedVcpuKick::~ScopedVcpuKick() { running_vcpu = nullptr; }

void kick_vcpu_thread(pthread_t thread) {
  install_handler();  // the signal's default action would end the process
  for (int number : kick_signals()) {
    if (::pthread_kill(thread, number) == 0) return;
  }
}

KickTimer::KickTimer(std::chrono::milliseconds timeout)
    : thread_([this, timeout, target = ::pthread_self()](std::stop_token stop) {
        std::mutex mutex;
        std::condition_variable_any stopped;
        std::unique_lock lock(mutex);
        stopped.wait_for(lock, stop, timeout, [] { return false; });
        if (stop.stop_requested()) return;
        expired_ = true;
        kick_vcpu_thread(target);
      }) {}

}  // namespace crosvm
