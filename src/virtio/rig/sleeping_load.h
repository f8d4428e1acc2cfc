#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "virtio/rig/rig_load.h"

namespace crosvm {

/// Load on one queue by a driver that never looks by itself: it looks at its ring only when it was
/// interrupted, and kicks only when the device asks for it. One wake-up that is lost, on the way
/// there or back, and it stands still for good, which other drivers of the rig would pass over.
///
/// Suppresses interrupts as Linux does (virtqueue_disable_cb and virtqueue_enable_cb of
/// drivers/virtio/virtio_ring.c): an interrupt leaves a stale event behind, which stands until the
/// ring is empty, perhaps for laps. One thread submits, another takes the interrupts.
class SleepingLoad {
 public:
  /// What Linux does about suppression while an interrupt is being served.
  enum class Kernel : uint8_t {
    k6_1,  ///< moves the event along with each request that is taken
    k6_4,  ///< leaves event and flags as they were
  };
  struct Options {
    uint64_t requests = 0;
    Kernel kernel = Kernel::k6_1;
    /// At most so long passes between batches, a different time each, in which the device falls
    /// asleep or does not.
    std::chrono::nanoseconds pause{0};
    std::chrono::milliseconds patience = RigDriver::kPatience;  ///< without a request coming back
    std::function<void(size_t slot)> prepare = {};              ///< under the lock of the ring
    std::function<bool(size_t slot, uint32_t written)> judge = {};
  };
  struct Report {
    uint64_t completed = 0;
    uint64_t failed = 0;  ///< of them, by `judge`
    uint64_t kicks = 0;
    uint64_t interrupts = 0;
    uint64_t idle_interrupts = 0;  ///< of them, with nothing in the ring
    std::string stall;             ///< where everything stood still; empty: nowhere
  };

  /// As RigLoad. The ring is fresh.
  SleepingLoad(RigDriver& driver, std::vector<RigLoad::Slot> slots)
      : driver_(driver), slots_(std::move(slots)) {}

  /// Runs until so many requests are back, or none for too long.
  Report run(const Options& options);

 private:
  RigDriver& driver_;
  std::vector<RigLoad::Slot> slots_;
};

}  // namespace crosvm
