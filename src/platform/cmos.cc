#include "platform/cmos.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <utility>

#include "base/log.h"
#include "platform/rtc_time.h"

namespace crosvm {
namespace {

enum Register : uint8_t {
  kSeconds = 0x00,
  kSecondsAlarm = 0x01,
  kMinutes = 0x02,
  kMinutesAlarm = 0x03,
  kHours = 0x04,
  kHoursAlarm = 0x05,
  kWeekday = 0x06,
  kDay = 0x07,
  kMonth = 0x08,
  kYear = 0x09,
  kRegisterB = 0x0b,
  kRegisterC = 0x0c,
  kRegisterD = 0x0d,
  kCentury = 0x32,
  kDayAlarm = 0x33,
  kMonthAlarm = 0x34,  // and the low byte of the memory below 4 GiB
  kMemoryLow = 0x34,
  kMemoryHigh = 0x5b,
};

constexpr uint8_t kIndexMask = 0x7f;
constexpr uint8_t kRegB24Hour = 0x02;
constexpr uint8_t kRegBAlarmEnable = 0x20;
constexpr uint8_t kRegBUnsupported = 0xdd;
constexpr uint8_t kRegCAlarm = 0xa0;  // interrupt request and alarm flags
constexpr uint8_t kRegDPowerGood = 0x80;

// The host's clock may be set while we wait, which timers do not follow.
constexpr std::chrono::nanoseconds kLongestWait = std::chrono::minutes(1);

}  // namespace

class Cmos::State : public std::enable_shared_from_this<Cmos::State> {
 public:
  State(EventLoop& loop, Memory memory, Fd irq_event, Fd clear_event, Wake wake, Clock clock)
      : loop_(loop),
        irq_event_(std::move(irq_event)),
        clear_event_(std::move(clear_event)),
        wake_(std::move(wake)),
        clock_(std::move(clock)) {
    bytes_[kRegisterB] = kRegB24Hour;
    store_memory_size(memory);
  }

  uint8_t index() {
    std::lock_guard guard(mutex_);
    return index_;
  }

  void select(uint8_t value) {
    std::lock_guard guard(mutex_);
    index_ = value & kIndexMask;
  }

  uint8_t read() {
    std::lock_guard guard(mutex_);
    switch (index_) {
      case kSeconds:
        return to_bcd(utc().tm_sec);
      case kMinutes:
        return to_bcd(utc().tm_min);
      case kHours:
        return to_bcd(utc().tm_hour);
      case kWeekday:
        return to_bcd(utc().tm_wday + 1);
      case kDay:
        return to_bcd(utc().tm_mday);
      case kMonth:
        return to_bcd(utc().tm_mon + 1);
      case kYear:
        return to_bcd((utc().tm_year + 1900) % 100);
      case kCentury:
        return to_bcd((utc().tm_year + 1900) / 100);
      case kRegisterC:
        return take_expired_alarm() ? kRegCAlarm : 0;
      case kRegisterD:
        return kRegDPowerGood;
      default:
        return bytes_[index_];
    }
  }

  void write(uint8_t value) {
    std::lock_guard guard(mutex_);
    if (index_ != kRegisterB) {
      bytes_[index_] = value;
      return;
    }
    bytes_[kRegisterB] = static_cast<uint8_t>((value & ~kRegBUnsupported) | kRegB24Hour);
    set_alarm();
  }

  /// On the loop's thread.
  void close() {
    std::lock_guard guard(mutex_);
    alarm_.reset();
    if (timer_ != 0) loop_.cancel(std::exchange(timer_, 0));
  }

 private:
  void store_memory_size(Memory memory) {
    constexpr uint64_t kUnit = 64 * 1024;
    constexpr uint64_t kCountedFrom = 16 * 1024 * 1024;
    const uint64_t above_16m = memory.below_4g > kCountedFrom ? memory.below_4g - kCountedFrom : 0;
    const uint64_t low = std::min<uint64_t>(above_16m / kUnit, 0xffff);
    const uint64_t high = std::min<uint64_t>(memory.above_4g / kUnit, 0xffffff);
    for (int i = 0; i < 2; ++i) bytes_[kMemoryLow + i] = static_cast<uint8_t>(low >> (8 * i));
    for (int i = 0; i < 3; ++i) bytes_[kMemoryHigh + i] = static_cast<uint8_t>(high >> (8 * i));
  }

  tm utc() const {
    const timespec now = clock_();
    tm result{};
    ::gmtime_r(&now.tv_sec, &result);
    return result;
  }

  void set_alarm() {
    clear_alarm();
    if ((bytes_[kRegisterB] & kRegBAlarmEnable) != 0) {
      alarm_ = next_alarm({.second = bytes_[kSecondsAlarm],
                           .minute = bytes_[kMinutesAlarm],
                           .hour = bytes_[kHoursAlarm],
                           .day = bytes_[kDayAlarm],
                           .month = bytes_[kMonthAlarm]},
                          clock_());
    }
    if (std::exchange(update_posted_, true))
      return;  // one is enough, however fast the guest writes
    loop_.post([weak = weak_from_this()] {
      if (auto state = weak.lock()) state->update_timer();
    });
  }

  void clear_alarm() {
    alarm_.reset();
    if (std::exchange(rang_, false)) signal_eventfd(clear_event_);
  }

  bool take_expired_alarm() {
    if (!alarm_ || clock_().tv_sec < *alarm_) return false;
    // The timer may be a moment late: the guest has seen the alarm, so it need not ring any more.
    clear_alarm();
    return true;
  }

  void update_timer() {
    std::lock_guard guard(mutex_);
    update_posted_ = false;
    if (timer_ != 0) loop_.cancel(std::exchange(timer_, 0));
    start_timer();
  }

  void start_timer() {
    using std::chrono::nanoseconds;
    using std::chrono::seconds;
    if (!alarm_ || rang_) return;
    const timespec now = clock_();
    const seconds whole(std::min<time_t>(*alarm_ - now.tv_sec, 3600));
    const nanoseconds left = whole - nanoseconds(now.tv_nsec);
    const nanoseconds wait = std::clamp(left, nanoseconds(0), kLongestWait);
    timer_ = loop_.after(wait, [weak = weak_from_this()] {
      if (auto state = weak.lock()) state->on_timer();
    });
  }

  void on_timer() {
    std::optional<Fd> clear_event;
    {
      std::lock_guard guard(mutex_);
      timer_ = 0;
      if (!alarm_ || rang_) return;
      if (clock_().tv_sec < *alarm_) return start_timer();
      rang_ = true;
      drain_eventfd(clear_event_);  // of an alarm before, that nobody looked at
      auto copy = clear_event_.duplicate();
      if (copy) clear_event = std::move(*copy);
      if (!copy) log::error("rtc alarm cannot wake the VM: {}", copy.error().what());
    }
    signal_eventfd(irq_event_);
    if (clear_event && wake_) wake_(std::move(*clear_event));
  }

  EventLoop& loop_;
  const Fd irq_event_;
  const Fd clear_event_;
  const Wake wake_;
  const Clock clock_;
  EventLoop::TimerId timer_ = 0;  // the loop's thread only

  std::mutex mutex_;  // guards what follows
  uint8_t index_ = 0;
  std::array<uint8_t, 128> bytes_{};
  std::optional<time_t> alarm_;  // armed until the guest reads register C after it
  bool rang_ = false;
  bool update_posted_ = false;
};

Result<std::unique_ptr<Cmos>> Cmos::create(EventLoop& loop, Memory memory, Fd irq_event, Wake wake,
                                           Clock clock) {
  Fd clear_event = TRY(make_eventfd());
  return std::unique_ptr<Cmos>(
      new Cmos(std::make_shared<State>(loop, memory, std::move(irq_event), std::move(clear_event),
                                       std::move(wake), std::move(clock))));
}

Cmos::Cmos(std::shared_ptr<State> state) : state_(std::move(state)) {}

Cmos::~Cmos() { state_->close(); }

void Cmos::read(uint64_t offset, std::span<std::byte> data) {
  if (data.size() != 1) return;
  if (offset == 0) data[0] = std::byte{state_->index()};
  if (offset == 1) data[0] = std::byte{state_->read()};
}

void Cmos::write(uint64_t offset, std::span<const std::byte> data) {
  if (data.size() != 1) return;
  const uint8_t value = std::to_integer<uint8_t>(data[0]);
  if (offset == 0) state_->select(value);
  if (offset == 1) state_->write(value);
}

timespec host_clock() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now;
}

}  // namespace crosvm
