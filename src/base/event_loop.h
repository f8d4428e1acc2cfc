#pragma once

#include <sys/epoll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// One thread's loop over descriptors and timers: callbacks, no coroutines. All calls belong to the
/// loop's thread but for `post` and `stop`.
class EventLoop {
 public:
  using WatchId = uint64_t;  ///< never reused, never 0
  using TimerId = uint64_t;  ///< never reused, never 0
  using Clock = std::chrono::steady_clock;

  static Result<std::unique_ptr<EventLoop>> create();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// Calls `ready(events)` while any of `events` (EPOLLIN, …; level-triggered) or EPOLLHUP/EPOLLERR
  /// holds; with EPOLLET among them once for each change, and what it tells need not be read. `fd`
  /// is borrowed: unwatch before closing it. Errors: the errno of epoll_ctl.
  Result<WatchId> watch(const Fd& fd, uint32_t events, std::function<void(uint32_t)> ready);
  Result<void> set_events(WatchId id, uint32_t events);
  /// After this returns the callback is not called again, even if it was already due. A callback
  /// may unwatch itself. Unknown ids are ignored.
  void unwatch(WatchId id);

  /// Calls `fire` once, at or after `when`.
  TimerId at(Clock::time_point when, std::function<void()> fire);
  TimerId after(Clock::duration delay, std::function<void()> fire);
  /// Unknown or fired ids are ignored.
  void cancel(TimerId id);

  /// Runs `work` on the loop's thread, soon, in order. From any thread.
  void post(std::function<void()> work);

  /// Dispatches until `stop`. Errors: the errno of epoll_wait.
  Result<void> run();
  /// Dispatches what is ready now, waiting at most `timeout`. For tests.
  Result<void> run_once(Clock::duration timeout);
  /// Makes `run` return after the present callback. From any thread.
  void stop();

 private:
  struct State;
  explicit EventLoop(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
