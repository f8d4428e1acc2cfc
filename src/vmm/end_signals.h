#pragma once

#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// SIGINT, SIGTERM and SIGHUP as an orderly end of the VM: the first calls `first` on the loop, a
/// second one kills the process at once, the terminal restored, whatever its threads are doing. One
/// that our parent had ignored (nohup, a shell's background job) stays ignored. A signal of a fault
/// restores the terminal before it kills. SIGPIPE and SIGXFSZ are errors of the write instead.
///
/// At most one at a time: handlers belong to the process.
class EndSignals {
 public:
  static Result<std::unique_ptr<EndSignals>> create(EventLoop& loop,
                                                    std::function<void(int)> first);
  ~EndSignals();
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;

  /// Whether a signal came, even if the loop has not run since. It also interrupts system calls.
  static bool received();

 private:
  EndSignals(EventLoop& loop, std::function<void(int)> first);

  EventLoop& loop_;
  std::function<void(int)> first_;
  Fd wake_;
  EventLoop::WatchId watch_ = 0;
};

}  // namespace crosvm
