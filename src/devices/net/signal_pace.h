#pragma once

#include <cstdint>

#include "virtio/virtqueue.h"

namespace crosvm {

/// When the driver hears of what was used while a turn goes on. Told at the end alone, it would
/// wait while the device works, and the device while the driver does: with long packets both take
/// their time.
class SignalPace {
 public:
  /// Bytes after which it is told: a long packet, or some dozens of short ones, whose interrupts
  /// would cost more than they gain.
  static constexpr uint64_t kBytes = 32 << 10;

  /// A packet has been used.
  void moved(Virtqueue& queue, uint64_t bytes) {
    untold_ += bytes;
    if (untold_ >= kBytes) tell(queue);
  }
  /// At the end of a turn.
  void tell(Virtqueue& queue) {
    untold_ = 0;
    queue.signal_used_if_needed();
  }

 private:
  uint64_t untold_ = 0;
};

}  // namespace crosvm
