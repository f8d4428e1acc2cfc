#include "platform/pm.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

constexpr uint64_t kStatus = 0;
constexpr uint64_t kEnable = 2;
constexpr uint64_t kControl = 4;
constexpr uint64_t kPm1End = 6;
constexpr size_t kGpeBytes = Pm::kGpeCount / 8;
constexpr uint64_t kGpeStatus = Pm::kGpeOffset;
constexpr uint64_t kGpeEnable = kGpeStatus + kGpeBytes;

// ACPI 6.3, 4.8.3: fixed events in PM1 status and enable.
constexpr uint16_t kGlobalLock = 1 << 5;
constexpr uint16_t kPowerButton = 1 << 8;
constexpr uint16_t kSleepButton = 1 << 9;
constexpr uint16_t kRtc = 1 << 10;
constexpr uint16_t kFixedEvents = kGlobalLock | kPowerButton | kSleepButton | kRtc;
constexpr uint16_t kWakeStatus = 1 << 15;
// PM1 control.
constexpr uint16_t kSleepEnable = 1 << 13;
constexpr int kSleepTypeShift = 10;
constexpr uint16_t kSleepTypeMask = 7;
constexpr uint16_t kSleepTypeS5 = 0;
constexpr uint16_t kSleepTypeS1 = 1;

/// Looks without reading: whoever gave us the descriptor may have left it blocking.
bool is_signalled(const Fd& event) {
  pollfd look{.fd = event.get(), .events = POLLIN, .revents = 0};
  return ::poll(&look, 1, 0) == 1;
}

/// One for each event is plenty; without a bound a control client could use up our descriptors.
constexpr size_t kMaxClearEvents = Pm::kGpeCount;

}  // namespace

struct Pm::State {
  struct ClearEvent {
    int gpe = -1;  // -1: the RTC
    Fd event;
  };
  enum class Sleep { kNone, kSuspend, kExit };

  State(EventLoop& loop, Fd trigger, Fd resample, PmActions actions)
      : loop(loop),
        sci_trigger(std::move(trigger)),
        sci_resample(std::move(resample)),
        actions(std::move(actions)) {}

  bool event_stands() const {
    if ((pm1_status & pm1_enable & kFixedEvents) != 0) return true;
    for (size_t i = 0; i < kGpeBytes; ++i) {
      if ((gpe_status[i] & gpe_enable[i]) != 0) return true;
    }
    return false;
  }

  /// Changes the registers by `change` under the lock, then asserts the SCI if an event stands,
  /// which is returned.
  template <class F>
  bool update(F change) {
    bool stands;
    {
      std::lock_guard guard(mutex);
      change();
      stands = event_stands();
    }
    if (stands) signal_eventfd(sci_trigger);
    return stands;
  }

  /// The same, where `change` raises an event: that also wakes the guest. What stands already does
  /// not, or a suspension that the user asked for would end at the guest's next EOI.
  template <class F>
  void raise(F change) {
    if (update(change) && actions.resume) actions.resume();
  }

  void set_event(int gpe) {
    if (gpe < 0) {
      pm1_status |= kRtc;
    } else {
      gpe_status[static_cast<size_t>(gpe) / 8] |= static_cast<uint8_t>(1 << (gpe % 8));
    }
  }

  void on_resample() {
    drain_eventfd(sci_resample);
    update([this] {
      std::erase_if(clear_events, [](const ClearEvent& one) { return is_signalled(one.event); });
      for (const ClearEvent& one : clear_events) set_event(one.gpe);
    });
  }

  uint16_t pm1_register(uint64_t base) const {
    if (base == kControl) return pm1_control;
    return base == kEnable ? pm1_enable : pm1_status;
  }

  void write_pm1(uint64_t offset, std::span<const std::byte> data);
  void write_gpe(uint64_t offset, uint8_t value);
  Sleep write_control(uint16_t value);
  void suspend();
  void report_bad_access(std::string_view kind, uint64_t offset, size_t size);

  EventLoop& loop;
  const Fd sci_trigger;
  const Fd sci_resample;
  const PmActions actions;
  EventLoop::WatchId watch = 0;
  std::atomic<bool> bad_access_reported = false;  // a guest could fill the log
  std::atomic<bool> bad_sleep_reported = false;

  mutable std::mutex mutex;  // guards what follows
  uint16_t pm1_status = 0;
  uint16_t pm1_enable = 0;
  uint16_t pm1_control = 0;
  std::array<uint8_t, kGpeBytes> gpe_status{};
  std::array<uint8_t, kGpeBytes> gpe_enable{};
  std::vector<ClearEvent> clear_events;
};

namespace {

/// PM1 registers take one or two bytes within one register, GPE registers one byte.
bool valid_access(uint64_t offset, size_t size) {
  if (offset < kPm1End) return size == 1 || (size == 2 && offset % 2 == 0);
  return offset >= kGpeStatus && offset < Pm::kLength && size == 1;
}

}  // namespace

Result<std::unique_ptr<Pm>> Pm::create(EventLoop& loop, Fd sci_trigger, Fd sci_resample,
                                       PmActions actions) {
  auto state = std::make_unique<State>(loop, std::move(sci_trigger), std::move(sci_resample),
                                       std::move(actions));
  State* raw = state.get();  // unwatched before the state goes away
  state->watch =
      TRY(loop.watch(raw->sci_resample, EPOLLIN, [raw](uint32_t) { raw->on_resample(); }));
  return std::unique_ptr<Pm>(new Pm(std::move(state)));
}

Pm::Pm(std::unique_ptr<State> state) : state_(std::move(state)) {}

Pm::~Pm() { state_->loop.unwatch(state_->watch); }

void Pm::read(uint64_t offset, std::span<std::byte> data) {
  if (!valid_access(offset, data.size())) {
    return state_->report_bad_access("read", offset, data.size());
  }
  std::lock_guard guard(state_->mutex);
  if (offset >= kGpeEnable) {
    data[0] = std::byte{state_->gpe_enable[offset - kGpeEnable]};
  } else if (offset >= kGpeStatus) {
    data[0] = std::byte{state_->gpe_status[offset - kGpeStatus]};
  } else {
    const uint16_t value = state_->pm1_register(offset & ~uint64_t{1});
    for (size_t i = 0; i < data.size(); ++i) {
      data[i] = static_cast<std::byte>(value >> (8 * ((offset + i) % 2)));
    }
  }
}

void Pm::write(uint64_t offset, std::span<const std::byte> data) {
  if (!valid_access(offset, data.size())) {
    return state_->report_bad_access("write", offset, data.size());
  }
  if (offset < kPm1End) {
    state_->write_pm1(offset, data);
  } else {
    state_->write_gpe(offset, std::to_integer<uint8_t>(data[0]));
  }
}

void Pm::State::write_pm1(uint64_t offset, std::span<const std::byte> data) {
  const uint64_t base = offset & ~uint64_t{1};
  uint16_t value = 0;
  uint16_t written = 0;  // a mask of the bits that the access covers
  for (size_t i = 0; i < data.size(); ++i) {
    const size_t shift = 8 * ((offset + i) % 2);
    value |= static_cast<uint16_t>(std::to_integer<uint16_t>(data[i]) << shift);
    written |= static_cast<uint16_t>(0xff << shift);
  }
  if (base == kStatus) {
    // The line is not dropped here: the guest's EOI does that, and the resample looks again.
    std::lock_guard guard(mutex);
    pm1_status &= static_cast<uint16_t>(~value);
    return;
  }
  if (base == kEnable) {
    update([&] { pm1_enable = static_cast<uint16_t>((pm1_enable & ~written) | value); });
    return;
  }
  Sleep sleep;
  {
    std::lock_guard guard(mutex);
    sleep = write_control(static_cast<uint16_t>((pm1_control & ~written) | value));
  }
  if (sleep == Sleep::kSuspend) suspend();
  if (sleep == Sleep::kExit && actions.exit) actions.exit();
}

void Pm::State::suspend() {
  if (actions.suspend) actions.suspend();
  // What was raised just before would have asked for the resume too early, and never again.
  raise([] {});
}

Pm::State::Sleep Pm::State::write_control(uint16_t value) {
  pm1_control = value & static_cast<uint16_t>(~kSleepEnable);  // write-only
  if ((value & kSleepEnable) == 0) return Sleep::kNone;
  const uint16_t type = (value >> kSleepTypeShift) & kSleepTypeMask;
  if (type == kSleepTypeS1) return Sleep::kSuspend;
  if (type == kSleepTypeS5) return Sleep::kExit;
  if (!bad_sleep_reported.exchange(true)) {
    log::error("the guest asked for sleep type {}, which is neither S1 (1) nor S5 (0)", type);
  }
  return Sleep::kNone;
}

void Pm::State::write_gpe(uint64_t offset, uint8_t value) {
  if (offset >= kGpeEnable) {
    update([&] { gpe_enable[offset - kGpeEnable] = value; });
    return;
  }
  std::lock_guard guard(mutex);
  gpe_status[offset - kGpeStatus] &= static_cast<uint8_t>(~value);
}

void Pm::State::report_bad_access(std::string_view kind, uint64_t offset, size_t size) {
  if (bad_access_reported.exchange(true)) return;
  log::warn("acpi-pm: ignored a {} of {} bytes at offset {}", kind, size, offset);
}

void Pm::power_button() {
  state_->raise([this] { state_->pm1_status |= kPowerButton; });
}

void Pm::sleep_button() {
  state_->raise([this] { state_->pm1_status |= kSleepButton; });
}

void Pm::rtc_wake(Fd clear_event) {
  state_->raise([&] {
    state_->set_event(-1);
    // There is one alarm: a new ring takes the place of the one before.
    std::erase_if(state_->clear_events, [](const auto& one) { return one.gpe < 0; });
    if (clear_event) state_->clear_events.push_back({.gpe = -1, .event = std::move(clear_event)});
  });
}

Result<void> Pm::gpe(uint32_t number, Fd clear_event) {
  if (number >= kGpeCount) {
    return fail(Error::invalid(
        format_text("general-purpose event {}: there are 0 to {}", number, kGpeCount - 1)));
  }
  bool room = true;
  state_->raise([&] {
    const int gpe = static_cast<int>(number);
    room = !clear_event || state_->clear_events.size() < kMaxClearEvents;
    if (!room) return;
    state_->set_event(gpe);
    if (clear_event) state_->clear_events.push_back({.gpe = gpe, .event = std::move(clear_event)});
  });
  if (room) return {};
  return fail(Error(std::errc::no_buffer_space,
                    format_text("general-purpose event {}: {} events wait to be cleared already; "
                                "signal their clear events first",
                                number, kMaxClearEvents)));
}

void Pm::resumed() {
  std::lock_guard guard(state_->mutex);
  state_->pm1_status |= kWakeStatus;
}

bool Pm::has_pending_clear_events() const {
  std::lock_guard guard(state_->mutex);
  return std::any_of(state_->clear_events.begin(), state_->clear_events.end(),
                     [](const State::ClearEvent& one) { return one.gpe >= 0; });
}

}  // namespace crosvm
