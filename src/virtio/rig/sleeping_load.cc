#include "virtio/rig/sleeping_load.h"

#include <poll.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "base/format.h"

namespace crosvm {
namespace {

using Kernel = SleepingLoad::Kernel;

/// Whether and when the driver wants interrupts, as it tells the device.
class Suppression {
 public:
  Suppression(RigDriver& driver, Kernel kernel)
      : ring_(driver.ring()),
        kernel_(kernel),
        event_idx_(driver.options().ring.event_idx),
        driver_area_(area(driver)),
        event_at_(ring_.packed() ? 0 : 4 + 2u * driver.options().ring.size) {
    write_event(0);
    write_flags(0);  // packed: VRING_PACKED_EVENT_FLAG_ENABLE
  }

  bool more_used() const {
    const RingPosition at = ring_.position();
    if (ring_.split()) return ring_.split()->used_idx() != at.index;
    const uint16_t flags = ring_.packed()->flags(at.index);
    const bool avail = (flags & PackedLayout::kAvail) != 0;
    const bool used = (flags & PackedLayout::kUsed) != 0;
    return avail == used && used == at.wrap_counter;
  }
  void interrupted() { triggered_ = event_idx_; }
  void disable() {
    if (triggered_ && kernel_ == Kernel::k6_1) return;
    if (off_) return;
    off_ = true;
    if (triggered_) return;  // the device has sent what was asked for, and sends no other
    if (ring_.split() && event_idx_) return write_event(0);
    set_flags(ring_.split() ? VRING_AVAIL_F_NO_INTERRUPT : VRING_PACKED_EVENT_FLAG_DISABLE);
  }
  void took_one() {
    const bool wanted = ring_.split() ? !off_ : flags_ == VRING_PACKED_EVENT_FLAG_DESC && !off_;
    if (!wanted || !event_idx_) return;
    write_event(position());
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  /// False when something has come meanwhile.
  bool enable() {
    triggered_ = false;
    if (event_idx_) write_event(position());
    if (std::exchange(off_, false)) {
      std::atomic_thread_fence(std::memory_order_release);
      const bool by_event = ring_.packed() && event_idx_;
      if (ring_.packed() || !event_idx_) {
        set_flags(by_event ? VRING_PACKED_EVENT_FLAG_DESC : 0);
      }
    }
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return !more_used();
  }
  std::string describe() const {
    return format_text("driver event {:#x} flags {:#x}", event_, flags_);
  }

 private:
  static GuestSlice area(RigDriver& driver) {
    const uint16_t size = driver.options().ring.size;
    const uint64_t bytes = driver.ring().packed() ? 4 : 6 + 2ull * size;
    return driver.memory().guest().slice(driver.ring().addresses().driver_area, bytes).value();
  }
  uint16_t position() const {
    const RingPosition at = ring_.position();
    if (ring_.split()) return at.index;
    return at.index | (at.wrap_counter ? 1 << VRING_PACKED_EVENT_F_WRAP_CTR : 0);
  }
  // Two stores, as Linux makes them: the device may see one without the other.
  void write_event(uint16_t event) {
    event_ = event;
    driver_area_.store_relaxed<uint16_t>(event_at_, event);
  }
  void set_flags(uint16_t flags) {
    flags_ = flags;
    write_flags(flags);
  }
  void write_flags(uint16_t flags) const {
    driver_area_.store_relaxed<uint16_t>(ring_.packed() ? 2 : 0, flags);
  }

  DriverRing& ring_;
  const Kernel kernel_;
  const bool event_idx_;
  const GuestSlice driver_area_;
  const size_t event_at_;
  uint16_t event_ = 0;
  uint16_t flags_ = 0;
  bool off_ = false;
  bool triggered_ = false;  // interrupted since `enable`
};

class Run {
 public:
  Run(RigDriver& driver, const std::vector<RigLoad::Slot>& slots,
      const SleepingLoad::Options& options)
      : driver_(driver),
        slots_(slots),
        options_(options),
        suppression_(driver, options.kernel),
        slot_of_(UINT16_MAX + 1) {
    for (size_t slot = slots.size(); slot > 0; --slot) idle_.push_back(slot - 1);
  }

  SleepingLoad::Report go() {
    std::thread interrupts([this] { take_interrupts(); });
    submit_all();
    stopping_ = true;
    signal_eventfd(driver_.call_descriptor());
    interrupts.join();
    return report_;
  }

 private:
  void submit_all() {
    std::minstd_rand random(7);
    uint64_t sent = 0;
    std::unique_lock lock(mutex_);
    while (report_.completed < options_.requests) {
      const uint64_t left = options_.requests - sent;
      if (idle_.empty() || left == 0) {
        if (!wait_for_news(lock)) return;
        continue;
      }
      pause(lock, random());
      const size_t batch = std::min<uint64_t>({1 + random() % 4, left, idle_.size()});
      for (size_t i = 0; i < batch; ++i) add();
      sent += batch;
      if (!driver_.ring().publish()) continue;
      ++report_.kicks;
      lock.unlock();  // what is added meanwhile by others may see a device that is awake already
      driver_.kick_anyway();
      lock.lock();
    }
  }
  void pause(std::unique_lock<std::mutex>& lock, uint64_t random) const {
    if (options_.pause.count() == 0) return;
    lock.unlock();
    const auto most = static_cast<uint64_t>(options_.pause.count());
    const auto end = RigWaiter::Clock::now() + std::chrono::nanoseconds(random % (most + 1));
    while (RigWaiter::Clock::now() < end) continue;
    lock.lock();
  }
  void add() {
    const size_t slot = idle_.back();
    idle_.pop_back();
    if (options_.prepare) options_.prepare(slot);
    const auto id = driver_.ring().add(slots_[slot].buffers, slots_[slot].table);
    CHECK(id.has_value());
    slot_of_[*id] = slot;
  }
  bool wait_for_news(std::unique_lock<std::mutex>& lock) {
    const uint64_t seen = report_.completed;
    if (news_.wait_for(lock, options_.patience, [&] { return report_.completed != seen; })) {
      return true;
    }
    const RingPosition at = driver_.ring().position();
    report_.stall = format_text(
        "after {} requests with {} out: next used {}{}, {} there, {}, kick {}, call {}",
        report_.completed, slots_.size() - idle_.size(), at.index, at.wrap_counter ? "+" : "-",
        suppression_.more_used() ? "one is" : "none is", suppression_.describe(),
        is_signalled(driver_.kick_descriptor()) ? "signalled" : "quiet",
        is_signalled(driver_.call_descriptor()) ? "signalled" : "quiet");
    if (driver_.waiter().broken()) report_.stall += ", the device needs a reset";
    return false;
  }
  static bool is_signalled(const Fd& event) {
    pollfd waited{.fd = event.get(), .events = POLLIN, .revents = 0};
    return ::poll(&waited, 1, 0) > 0;
  }

  void take_interrupts() {
    while (true) {
      pollfd waited{.fd = driver_.call_descriptor().get(), .events = POLLIN, .revents = 0};
      ::poll(&waited, 1, -1);
      driver_.take_interrupts();
      if (stopping_) return;
      std::lock_guard lock(mutex_);
      ++report_.interrupts;
      if (!suppression_.more_used()) {
        ++report_.idle_interrupts;
        continue;
      }
      suppression_.interrupted();
      do {
        suppression_.disable();
        while (take_one()) suppression_.took_one();
      } while (!suppression_.enable());
      news_.notify_one();
    }
  }
  bool take_one() {
    const auto used = driver_.ring().take_used();
    if (!used) return false;
    const size_t slot = slot_of_[used->id];
    ++report_.completed;
    if (options_.judge && !options_.judge(slot, used->written)) ++report_.failed;
    idle_.push_back(slot);
    return true;
  }

  RigDriver& driver_;
  const std::vector<RigLoad::Slot>& slots_;
  const SleepingLoad::Options& options_;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;  // for all below, and the ring
  std::condition_variable news_;
  Suppression suppression_;
  std::vector<size_t> idle_;
  std::vector<size_t> slot_of_;
  SleepingLoad::Report report_;
};

}  // namespace

SleepingLoad::Report SleepingLoad::run(const Options& options) {
  return Run(driver_, slots_, options).go();
}

}  // namespace crosvm
