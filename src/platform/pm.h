#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "platform/bus.h"

namespace crosvm {

/// What a guest asks for through the PM block. Called without a lock held, on a vCPU's thread or on
/// the thread that raised an event.
struct PmActions {
  std::function<void()> suspend;  ///< S1: stop the vCPUs until `resume`
  std::function<void()> resume;   ///< an event was raised: run again if suspended
  std::function<void()> exit;     ///< S5: the VM ends
};

/// The ACPI fixed hardware: PM1 event and control registers and one GPE block of 256 events
/// (platform.md 1.12). Its interrupt, the SCI, is level-triggered. Thread-safe.
class Pm : public BusDevice {
 public:
  static constexpr uint64_t kLength = 72;     ///< bytes of port space
  static constexpr uint64_t kGpeOffset = 8;   ///< GPE0 block, from the base
  static constexpr uint64_t kGpeLength = 64;  ///< bytes: 32 of status, 32 of enable
  static constexpr uint32_t kGpeCount = 256;

  /// `sci_trigger` is an eventfd that asserts the line; `sci_resample` one that is signalled when
  /// the guest's EOI has deasserted it (KVM's irqfd with resample), watched on `loop`. The line is
  /// asserted again while an enabled event stands. Errors: the errno of the watch.
  static Result<std::unique_ptr<Pm>> create(EventLoop& loop, Fd sci_trigger, Fd sci_resample,
                                            PmActions actions);
  /// On the loop's thread, or while the loop does not run.
  ~Pm() override;

  std::string_view label() const override { return "acpi-pm"; }
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

  void power_button();
  void sleep_button();
  /// The RTC's alarm rang. The event is raised again at each EOI until `clear_event`, an eventfd,
  /// is signalled.
  void rtc_wake(Fd clear_event);
  /// Raises general-purpose event `number`, once, or with a `clear_event` as above. Errors:
  /// invalid_argument for a number past the last, no_buffer_space when too many wait to be cleared.
  Result<void> gpe(uint32_t number, Fd clear_event = Fd());
  /// The vCPUs run again after S1: sets WAK_STS, for which the guest waits.
  void resumed();
  /// A snapshot now would lose who clears an event (devices.md 11).
  bool has_pending_clear_events() const;

 private:
  struct State;
  explicit Pm(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
