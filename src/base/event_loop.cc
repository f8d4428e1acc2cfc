#include "base/event_loop.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "base/format.h"

namespace crosvm {
namespace {

// Values of epoll_data for our own descriptors; watches have ids from 1.
constexpr uint64_t kWakeEvent = 0;
constexpr uint64_t kTimerEvent = UINT64_MAX;
constexpr size_t kEventsAtOnce = 64;

using Clock = EventLoop::Clock;

/// steady_clock is CLOCK_MONOTONIC. Never all zero, which would disarm a timerfd.
timespec to_timespec(Clock::time_point when) {
  auto ns = std::max<int64_t>(
      1, std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch()).count());
  return {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
}

Result<void> add_to_epoll(const Fd& epoll, const Fd& fd, uint32_t events, uint64_t data) {
  epoll_event event{.events = events, .data = {.u64 = data}};
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) {
    return fail(Error::from_errno("watching", format_text("descriptor {}", fd.get())));
  }
  return {};
}

}  // namespace

struct EventLoop::State {
  struct Watch {
    int raw_fd;
    uint32_t events;
    std::function<void(uint32_t)> ready;
  };
  using TimerKey = std::pair<Clock::time_point, TimerId>;

  Fd epoll;
  Fd wake;
  Fd timer;

  // Shared, so that a callback outlives its own unwatch. An id that is gone from here is dead, even
  // if an event for it has been fetched already.
  std::unordered_map<WatchId, std::shared_ptr<Watch>> watches;
  std::unordered_map<int, WatchId> watch_of_fd;
  WatchId next_watch = 1;

  std::map<TimerKey, std::function<void()>> timers;  // by due time, then in order of request
  std::unordered_map<TimerId, Clock::time_point> due;
  TimerId next_timer = 1;
  std::optional<Clock::time_point> armed;  // what the timerfd is set to

  std::deque<std::function<void()>> work;  // taken from `posted`, not yet run
  std::atomic<bool> stopping = false;
  std::mutex mutex;
  std::deque<std::function<void()>> posted;  // guarded by mutex

  Result<void> dispatch(int timeout_ms);
  Result<int> wait_for_events(int timeout_ms, std::array<epoll_event, kEventsAtOnce>& events);
  Result<void> arm_timer();
  void run_watches(std::span<const epoll_event> events);
  void look_again(std::span<const epoll_event> events);
  void run_timers();
  void run_work();
  void forget_timer_expiry();
};

Result<void> EventLoop::State::arm_timer() {
  if (timers.empty()) return {};  // a stale expiry only costs one turn
  Clock::time_point first = timers.begin()->first.first;
  if (armed == first) return {};
  itimerspec setting{.it_interval = {}, .it_value = to_timespec(first)};
  if (::timerfd_settime(timer.get(), TFD_TIMER_ABSTIME, &setting, nullptr) != 0) {
    return fail(Error::from_errno("arming", "the event loop's timer"));
  }
  armed = first;
  return {};
}

void EventLoop::State::forget_timer_expiry() {
  uint64_t expiries = 0;
  (void)!::read(timer.get(), &expiries, sizeof(expiries));  // non-blocking, and ours alone
  armed.reset();
}

Result<int> EventLoop::State::wait_for_events(int timeout_ms,
                                              std::array<epoll_event, kEventsAtOnce>& events) {
  TRY(arm_timer());
  if (!work.empty()) timeout_ms = 0;
  int count = ::epoll_wait(epoll.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  if (count < 0 && errno == EINTR) return 0;
  if (count < 0) return fail(Error::from_errno("waiting for", "events"));
  return count;
}

/// These come again although edges were fetched.
void EventLoop::State::look_again(std::span<const epoll_event> events) {
  for (const epoll_event& event : events) {
    auto found = watches.find(WatchId{event.data.u64});
    if (found == watches.end() || (found->second->events & EPOLLET) == 0) continue;
    epoll_event same{.events = found->second->events, .data = event.data};
    ::epoll_ctl(epoll.get(), EPOLL_CTL_MOD, found->second->raw_fd, &same);
  }
}

void EventLoop::State::run_watches(std::span<const epoll_event> events) {
  for (size_t i = 0; i < events.size(); ++i) {
    const epoll_event& event = events[i];
    if (stopping) return look_again(events.subspan(i));
    const WatchId id = event.data.u64;  // a copy: epoll_event is packed
    auto found = watches.find(id);
    if (found == watches.end()) continue;
    std::shared_ptr<Watch> watch = found->second;
    watch->ready(event.events);
  }
}

void EventLoop::State::run_timers() {
  Clock::time_point now = Clock::now();
  TimerId newest = next_timer;  // a timer set by a timer waits for the next turn
  auto next = timers.begin();
  while (!stopping && next != timers.end() && next->first.first <= now) {
    if (next->first.second >= newest) {
      ++next;
      continue;
    }
    TimerKey key = next->first;
    std::function<void()> fire = std::move(next->second);
    due.erase(key.second);
    timers.erase(next);
    fire();
    next = timers.upper_bound(key);
  }
}

void EventLoop::State::run_work() {
  {
    std::lock_guard lock(mutex);
    std::move(posted.begin(), posted.end(), std::back_inserter(work));
    posted.clear();
  }
  // What these post is taken next turn, so that descriptors and timers get theirs.
  while (!stopping && !work.empty()) {
    std::function<void()> next = std::move(work.front());
    work.pop_front();
    next();
  }
}

Result<void> EventLoop::State::dispatch(int timeout_ms) {
  std::array<epoll_event, kEventsAtOnce> events;
  size_t count = static_cast<size_t>(TRY(wait_for_events(timeout_ms, events)));
  for (size_t i = 0; i < count; ++i) {
    // Emptied before the work is looked at, or a post in between would be missed.
    if (events[i].data.u64 == kWakeEvent) drain_eventfd(wake);
    if (events[i].data.u64 == kTimerEvent) forget_timer_expiry();
  }
  run_watches(std::span(events).first(count));
  run_timers();
  run_work();
  return {};
}

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  auto state = std::make_unique<State>();
  state->epoll = Fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!state->epoll) return fail(Error::from_errno("creating", "an epoll descriptor"));
  state->timer = Fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!state->timer) return fail(Error::from_errno("creating", "a timerfd"));
  state->wake = TRY(make_eventfd());
  TRY(add_to_epoll(state->epoll, state->wake, EPOLLIN, kWakeEvent));
  TRY(add_to_epoll(state->epoll, state->timer, EPOLLIN, kTimerEvent));
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(state)));
}

EventLoop::EventLoop(std::unique_ptr<State> state) : state_(std::move(state)) {}

EventLoop::~EventLoop() {
  // What a callback owns may call back into the loop while it is destroyed.
  auto watches = std::exchange(state_->watches, {});
  auto timers = std::exchange(state_->timers, {});
  auto work = std::exchange(state_->work, {});
  std::unique_lock lock(state_->mutex);
  auto posted = std::exchange(state_->posted, {});
  lock.unlock();
}

Result<EventLoop::WatchId> EventLoop::watch(const Fd& fd, uint32_t events,
                                            std::function<void(uint32_t)> ready) {
  WatchId id = state_->next_watch;
  TRY(add_to_epoll(state_->epoll, fd, events, id));
  ++state_->next_watch;
  // The kernel took the number, so whatever we knew under it was closed without unwatch: its late
  // unwatch must not remove this one.
  if (auto old = state_->watch_of_fd.find(fd.get()); old != state_->watch_of_fd.end()) {
    state_->watches.erase(old->second);
  }
  state_->watch_of_fd[fd.get()] = id;
  state_->watches[id] = std::make_shared<State::Watch>(
      State::Watch{.raw_fd = fd.get(), .events = events, .ready = std::move(ready)});
  return id;
}

Result<void> EventLoop::set_events(WatchId id, uint32_t events) {
  auto found = state_->watches.find(id);
  if (found == state_->watches.end()) {
    return fail(Error::invalid(format_text("watch {} does not exist", id)));
  }
  if (found->second->events == events) return {};  // as after most messages of a peer
  epoll_event event{.events = events, .data = {.u64 = id}};
  int fd = found->second->raw_fd;
  if (::epoll_ctl(state_->epoll.get(), EPOLL_CTL_MOD, fd, &event) != 0) {
    return fail(Error::from_errno("watching", format_text("descriptor {}", fd)));
  }
  found->second->events = events;
  return {};
}

void EventLoop::unwatch(WatchId id) {
  auto found = state_->watches.find(id);
  if (found == state_->watches.end()) return;
  std::shared_ptr<State::Watch> watch = std::move(found->second);
  state_->watches.erase(found);
  state_->watch_of_fd.erase(watch->raw_fd);
  // Fails only for a descriptor that is closed already, which the kernel has removed by itself.
  ::epoll_ctl(state_->epoll.get(), EPOLL_CTL_DEL, watch->raw_fd, nullptr);
}

EventLoop::TimerId EventLoop::at(Clock::time_point when, std::function<void()> fire) {
  TimerId id = state_->next_timer++;
  state_->timers.emplace(std::pair(when, id), std::move(fire));
  state_->due.emplace(id, when);
  return id;
}

EventLoop::TimerId EventLoop::after(Clock::duration delay, std::function<void()> fire) {
  Clock::time_point now = Clock::now();
  bool forever = delay > Clock::time_point::max() - now;
  return at(forever ? Clock::time_point::max() : now + delay, std::move(fire));
}

void EventLoop::cancel(TimerId id) {
  auto found = state_->due.find(id);
  if (found == state_->due.end()) return;
  auto timer = state_->timers.find({found->second, id});
  state_->due.erase(found);
  if (timer == state_->timers.end()) return;  // the loop is going away
  std::function<void()> last = std::move(timer->second);
  state_->timers.erase(timer);
}

void EventLoop::post(std::function<void()> work) {
  // Signalled under the lock: once `work` can run, it may end the loop.
  std::lock_guard lock(state_->mutex);
  state_->posted.push_back(std::move(work));
  if (state_->posted.size() == 1) signal_eventfd(state_->wake);
}

Result<void> EventLoop::run() {
  while (!state_->stopping) TRY(state_->dispatch(-1));
  state_->stopping = false;
  return {};
}

Result<void> EventLoop::run_once(Clock::duration timeout) {
  auto ms = std::chrono::ceil<std::chrono::milliseconds>(timeout).count();
  Result<void> result = state_->dispatch(static_cast<int>(std::clamp<int64_t>(ms, 0, INT32_MAX)));
  state_->stopping = false;
  return result;
}

void EventLoop::stop() {
  state_->stopping = true;
  signal_eventfd(state_->wake);
}

}  // namespace crosvm
