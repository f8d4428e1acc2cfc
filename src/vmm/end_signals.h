#pragma once

#include <signal.h>

#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// SIGINT, SIGTERM and SIGHUP as an orderly end of the VM: the first calls `first` on the loop, a
/// second one kills the process at once, the terminal restored. One that our parent had ignored
/// (nohup, a shell's background job) stays ignored. SIGPIPE is ignored from here on.
///
/// Made before any thread, so that every thread inherits the blocked signals.
class EndSignals {
 public:
  static Result<std::unique_ptr<EndSignals>> create(EventLoop& loop,
                                                    std::function<void(int)> first);
  ~EndSignals();
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;

 private:
  EndSignals(EventLoop& loop, std::function<void(int)> first);
  void on_readable();

  EventLoop& loop_;
  std::function<void(int)> first_;
  sigset_t set_{};  // those of the three that are ours
  Fd signals_;
  EventLoop::WatchId watch_ = 0;
};

}  // namespace crosvm
