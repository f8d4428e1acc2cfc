#include "virtio/rig/rig_load.h"

#include <algorithm>
#include <thread>

namespace crosvm {

/// The state of one run.
struct RigLoad::Run {
  RigLoad& load;
  const Options& options;
  Report report{};
  Clock::time_point start = Clock::now();
  Clock::time_point end = start + options.duration;
  Clock::time_point last_news = start;
  uint64_t sent = 0;
  size_t in_flight = 0;

  bool finished(Clock::time_point now) const { return now >= end || sent >= options.requests; }
  /// When request number `sent` is due.
  Clock::time_point due(Clock::time_point now) const {
    if (options.rate <= 0) return now;
    return start + std::chrono::nanoseconds(
                       static_cast<int64_t>(static_cast<double>(sent) * 1e9 / options.rate));
  }

  bool send_due(Clock::time_point now);
  bool take_back();
  void wait(Clock::time_point now);
  void go();
};

RigLoad::RigLoad(RigDriver& driver, std::vector<Slot> slots)
    : driver_(driver), slots_(std::move(slots)), slot_of_(UINT16_MAX + 1), since_(slots_.size()) {
  for (size_t slot = slots_.size(); slot > 0; --slot) idle_.push_back(slot - 1);
}

bool RigLoad::Run::send_due(Clock::time_point now) {
  bool any = false;
  while (!load.idle_.empty() && !finished(now)) {
    const Clock::time_point when = due(now);
    if (when > now) break;
    const size_t slot = load.idle_.back();
    if (options.prepare) options.prepare(slot);
    const auto id = load.driver_.ring().add(load.slots_[slot].buffers, load.slots_[slot].table);
    CHECK(id.has_value());
    load.idle_.pop_back();
    load.slot_of_[*id] = slot;
    load.since_[slot] = when;
    ++sent;
    ++in_flight;
    any = true;
  }
  if (any && load.driver_.kick()) ++report.kicks;
  return any;
}

bool RigLoad::Run::take_back() {
  bool any = false;
  while (const auto used = load.driver_.ring().take_used()) {
    const size_t slot = load.slot_of_[used->id];
    last_news = Clock::now();
    report.latency.count(static_cast<uint64_t>((last_news - load.since_[slot]).count()));
    ++report.completed;
    if (options.judge && !options.judge(slot, used->written)) ++report.failed;
    load.idle_.push_back(slot);
    --in_flight;
    any = true;
  }
  return any;
}

void RigLoad::Run::wait(Clock::time_point now) {
  if (options.spin) return;
  const bool may_send = !load.idle_.empty() && !finished(now);
  Clock::time_point until = now + std::chrono::milliseconds(100);
  if (may_send) until = std::min(until, due(now));
  if (in_flight == 0) return std::this_thread::sleep_until(until);
  load.driver_.ring().ask_for_interrupt();
  if (take_back()) return;  // it came before we had asked
  load.driver_.waiter().wait(load.driver_.call_descriptor(), until);
  report.interrupts += load.driver_.take_interrupts();
}

void RigLoad::Run::go() {
  load.driver_.ring().refuse_interrupts();
  for (;;) {
    const Clock::time_point now = Clock::now();
    const bool sent_some = send_due(now);
    const bool took_some = take_back();
    if (in_flight == 0 && finished(now)) break;
    if (sent_some || took_some) continue;
    report.stalled = load.driver_.waiter().broken() || now - last_news > RigDriver::kPatience;
    if (report.stalled) break;
    wait(now);
  }
  report.elapsed = Clock::now() - start;
}

RigLoad::Report RigLoad::run(const Options& options) {
  Run run{.load = *this, .options = options};
  run.go();
  return std::move(run.report);
}

}  // namespace crosvm
