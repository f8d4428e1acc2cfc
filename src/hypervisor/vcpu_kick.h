#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <thread>

#include "hypervisor/hypervisor.h"

/// Taking a thread out of the guest: SIGRTMIN (or SIGURG, where that finds no room), whose handler
/// sets the immediate exit of the vCPU that the thread runs. So a kick that comes just before the
/// thread enters the guest is not lost.
namespace crosvm {

/// Makes the calling thread the one that runs `vcpu`: a kick ends its present or next `run`.
/// Installs the handler and unblocks the signal. At most one per thread at a time.
class ScopedVcpuKick {
 public:
  explicit ScopedVcpuKick(Vcpu& vcpu);
  ~ScopedVcpuKick();
  ScopedVcpuKick(const ScopedVcpuKick&) = delete;
  ScopedVcpuKick& operator=(const ScopedVcpuKick&) = delete;
};

/// Kicks a thread that is not joined yet; one without a ScopedVcpuKick only has its system calls
/// interrupted. The immediate exit stays set until the thread clears it. From any thread.
void kick_vcpu_thread(pthread_t thread);

/// Kicks the calling thread once when `timeout` has passed before this is destroyed. For guests
/// that must not be trusted to come back: with an in-kernel irqchip HLT never exits.
class KickTimer {
 public:
  explicit KickTimer(std::chrono::milliseconds timeout);
  /// Whether the timeout has passed.
  bool expired() const { return expired_; }

 private:
  std::atomic<bool> expired_ = false;
  std::jthread thread_;  // last: stopped and joined first
};

}  // namespace crosvm
