#pragma once

#include <map>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"

namespace crosvm {

/// The VMM's threads as the spawner sees them: the listeners of their system call filters. The
/// first call that a policy does not allow is logged and ends the VMM.
class VmmThreads {
 public:
  /// `vmm` is the VMM's pidfd. `loop` outlives this.
  VmmThreads(EventLoop& loop, Fd vmm);
  ~VmmThreads();
  VmmThreads(const VmmThreads&) = delete;
  VmmThreads& operator=(const VmmThreads&) = delete;

  /// Hears from now on what `listener` reports of the thread called `name`, which is under
  /// `policy`.
  void supervise(std::string policy, std::string name, Fd listener);

 private:
  struct Thread {
    std::string policy;
    std::string name;
    Fd listener;
    EventLoop::WatchId watch = 0;
  };
  void hear(uint64_t number, uint32_t events);
  void forget(uint64_t number);
  void kill();

  EventLoop& loop_;
  Fd vmm_;
  bool denied_ = false;
  uint64_t next_ = 0;
  std::map<uint64_t, Thread> threads_;
};

}  // namespace crosvm
