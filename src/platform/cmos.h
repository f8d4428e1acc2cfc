#pragma once

#include <time.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "platform/bus.h"

namespace crosvm {

/// The MC146818 real-time clock and its 128 bytes of memory at ports 0x70 and 0x71
/// (devices.md 2.3). The clock is the host's, in UTC; the guest cannot set it. Thread-safe: vCPUs
/// through the bus, the alarm on the event loop.
class Cmos : public BusDevice {
 public:
  static constexpr uint64_t kBase = 0x70;
  static constexpr uint64_t kLength = 2;  ///< bytes of port space

  /// The alarm rang. `clear_event` is an eventfd that is signalled when the guest has dealt with
  /// it.
  using Wake = std::function<void(Fd clear_event)>;
  using Clock = std::function<timespec()>;  ///< CLOCK_REALTIME

  struct Memory {
    uint64_t below_4g = 0;  ///< bytes of RAM
    uint64_t above_4g = 0;
  };

  /// `irq_event` is an eventfd: one signal is one edge. `wake` is called on the loop's thread after
  /// the edge. Errors: the errno of making an eventfd.
  static Result<std::unique_ptr<Cmos>> create(EventLoop& loop, Memory memory, Fd irq_event,
                                              Wake wake, Clock clock);
  /// On the loop's thread, or while the loop does not run.
  ~Cmos() override;

  std::string_view label() const override { return "cmos"; }
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  class State;
  explicit Cmos(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

/// CLOCK_REALTIME now, for `Cmos::create`.
timespec host_clock();

}  // namespace crosvm
