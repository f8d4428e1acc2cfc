#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"

namespace crosvm {

/// The host's end of what a port receives: a file, pipe or stream socket. Nothing is read ahead, so
/// a guest that takes nothing slows the writer down.
class PortInput {
 public:
  /// `object` names the descriptor in logs; `readable` is called on the loop, once for each `read`
  /// that found nothing. The loop outlives this.
  PortInput(EventLoop& loop, Fd fd, std::string object, std::function<void()> readable);
  ~PortInput();
  PortInput(const PortInput&) = delete;
  PortInput& operator=(const PortInput&) = delete;

  /// Reads what is there, without waiting. Nothing: none is there now, and `readable` will be
  /// called. 0: the input has ended, now or before; an error, which is logged, ends it too.
  std::optional<size_t> read(std::span<std::byte> to);
  bool ended() const { return !fd_; }

 private:
  std::optional<size_t> end(int error_number);
  std::optional<size_t> wait();
  void stop_waiting();

  EventLoop& loop_;
  Fd fd_;  // none: ended
  std::string object_;
  std::function<void()> readable_;
  EventLoop::WatchId watch_ = 0;
};

}  // namespace crosvm
