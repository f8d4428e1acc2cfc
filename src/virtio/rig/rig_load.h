#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "virtio/rig/latency_histogram.h"
#include "virtio/rig/rig_driver.h"

namespace crosvm {

/// Load on one queue, for benchmarks: chains built beforehand go round, as many at a time as there
/// are; nothing is allocated meanwhile. Several queues: one load and one thread each.
class RigLoad {
 public:
  /// One chain that goes round: its buffers, and a table if it is to be indirect.
  struct Slot {
    std::vector<DriverBuffer> buffers;
    std::optional<GuestAddress> table;
  };
  struct Options {
    std::chrono::nanoseconds duration{std::chrono::seconds(1)};
    uint64_t requests = UINT64_MAX;  ///< ends after so many, if that comes first
    /// 0: closed loop, each chain goes out again as soon as it is back. Else open loop: so many
    /// requests are due a second, evenly, and what a late one waits counts as its latency.
    double rate = 0;
    bool spin = false;  ///< look without end instead of sleeping until the interrupt
    /// Rewrites the buffers of a slot for its next request, if they change.
    std::function<void(size_t slot)> prepare = {};
    /// Whether a slot came back well.
    std::function<bool(size_t slot, uint32_t written)> judge = {};
  };
  struct Report {
    uint64_t completed = 0;
    uint64_t failed = 0;  ///< of them, by `judge`
    uint64_t kicks = 0;
    uint64_t interrupts = 0;
    std::chrono::nanoseconds elapsed{0};
    LatencyHistogram latency;
    bool stalled = false;  ///< nothing came back for RigDriver::kPatience, or a reset was needed

    double per_second() const {
      return static_cast<double>(completed) * 1e9 / static_cast<double>(elapsed.count());
    }
  };

  /// The driver outlives the load, which is the only one to use its ring. As many slots as requests
  /// are to be in flight; the ring must have room for them.
  RigLoad(RigDriver& driver, std::vector<Slot> slots);

  /// Runs until the time or the requests are used up and everything is back.
  Report run(const Options& options);

 private:
  using Clock = std::chrono::steady_clock;
  struct Run;

  RigDriver& driver_;
  std::vector<Slot> slots_;
  std::vector<size_t> idle_;              // slots
  std::vector<size_t> slot_of_;           // by the ring's id
  std::vector<Clock::time_point> since_;  // when a slot's request was due
};

}  // namespace crosvm
