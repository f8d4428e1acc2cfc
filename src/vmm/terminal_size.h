#pragma once

#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "devices/console/console_config.h"

namespace crosvm {

/// Tells the size of the terminal on standard input: at once, and whenever it changes (SIGWINCH).
/// At most one at a time: handlers belong to the process.
class TerminalSizes {
 public:
  /// `changed` is called on the loop, and once before this returns. Nothing is told when standard
  /// input is no terminal, or one that does not know its size.
  static Result<std::unique_ptr<TerminalSizes>> watch(EventLoop& loop,
                                                      std::function<void(ConsoleSize)> changed);
  ~TerminalSizes();
  TerminalSizes(const TerminalSizes&) = delete;
  TerminalSizes& operator=(const TerminalSizes&) = delete;

 private:
  TerminalSizes(EventLoop& loop, std::function<void(ConsoleSize)> changed);
  void tell();

  EventLoop& loop_;
  std::function<void(ConsoleSize)> changed_;
  Fd wake_;
  EventLoop::WatchId watch_ = 0;
};

}  // namespace crosvm
