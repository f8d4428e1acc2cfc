#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// The VMM's one thread for interrupts that cannot go from a device straight into the hypervisor:
/// masked MSI-X vectors and INTx lines.
class InterruptRelay {
 public:
  using WatchId = uint64_t;  ///< never 0, never reused

  /// Starts the thread.
  static Result<std::unique_ptr<InterruptRelay>> create();
  /// Ends it. All that was watched must be forgotten by then.
  ~InterruptRelay();
  InterruptRelay(const InterruptRelay&) = delete;
  InterruptRelay& operator=(const InterruptRelay&) = delete;

  /// Runs `work` on the relay's thread, before what becomes readable from here on, and waits for
  /// it.
  void call(const std::function<void()>& work);

  /// Calls `fired` on the relay's thread while `fd` is readable; `fired` drains it. `fd` is
  /// borrowed until `forget`, and must not be watched already. From any thread, also from `fired`;
  /// does not wait.
  WatchId watch(const Fd& fd, std::function<void()> fired);
  /// No call begins after this. From any thread, does not wait: a call may still be running.
  void unwatch(WatchId id);
  /// Like unwatch, and waits until no call runs; not from the relay's thread. `fd` may be closed.
  /// An `id` that was unwatched before is waited for too.
  void forget(WatchId id);

 private:
  struct State;
  explicit InterruptRelay(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
