#pragma once

#include <csignal>
#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// SIGINT, SIGTERM and SIGHUP as an orderly end of the VM: the first calls `first` on the loop, a
/// second one kills the process at once, the terminal restored, whatever its threads are doing.
/// What programs send within a second of the first belongs to it. One that our parent had ignored
/// (nohup, a shell's background job) stays ignored. A signal of a fault restores the terminal
/// before it kills; SIGTSTP before it stops, and the terminal is raw again when we go on. SIGPIPE
/// and SIGXFSZ are errors of the write instead.
///
/// At most one at a time: handlers belong to the process.
class EndSignals {
 public:
  static Result<std::unique_ptr<EndSignals>> create(EventLoop& loop,
                                                    std::function<void(int)> first);
  ~EndSignals();
  EndSignals(const EndSignals&) = delete;
  EndSignals& operator=(const EndSignals&) = delete;

  /// The signal that came first, even if the loop has not run since; 0: none came. It also
  /// interrupts system calls.
  static int received();
  /// Can be read from once a signal came, until the loop runs: ends what is waited for before that
  /// (wait_ready).
  const Fd& interrupt() const { return wake_; }

  /// While it lives these signals wait, on a process of one thread: none may kill between what is
  /// made and the word to whom will remove it. Nothing is waited for meanwhile.
  class Held {
   public:
    Held();
    ~Held();
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

   private:
    sigset_t before_;
  };

 private:
  EndSignals(EventLoop& loop, std::function<void(int)> first);

  EventLoop& loop_;
  std::function<void(int)> first_;
  Fd wake_;
  EventLoop::WatchId watch_ = 0;
};

}  // namespace crosvm
