#include "devices/vsock/vsock_dialer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>
#include <utility>

namespace crosvm {
namespace {

/// A listener whose queue is full may have room in a moment; a guest's own patience is 2 seconds.
constexpr std::chrono::seconds kPatience{2};
constexpr std::chrono::milliseconds kPause{10};

}  // namespace

VsockDialer::VsockDialer(EventLoop& loop, Fd channel, Answer answer)
    : loop_(loop), channel_(std::move(channel), kVsockDialPackets), answer_(std::move(answer)) {}

Result<std::unique_ptr<VsockDialer>> VsockDialer::create(EventLoop& loop, Fd channel,
                                                         Answer answer) {
  std::unique_ptr<VsockDialer> dialer(new VsockDialer(loop, std::move(channel), std::move(answer)));
  VsockDialer* raw = dialer.get();
  dialer->watch_ = TRY(loop.watch(raw->channel_.fd(), EPOLLIN, [raw](uint32_t) { raw->hear(); }));
  return dialer;
}

VsockDialer::~VsockDialer() {
  loop_.unwatch(watch_);
  loop_.cancel(timer_);
}

void VsockDialer::dial(uint64_t number, uint32_t rule) {
  waiting_.push_back(
      {.number = number, .rule = rule, .until = EventLoop::Clock::now() + kPatience});
  if (watch_ != 0) return ask();
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) host_has_gone();
  });
}

void VsockDialer::forget(uint64_t number) {
  const auto is_it = [number](const Attempt& attempt) { return attempt.number == number; };
  std::erase_if(waiting_, is_it);
  std::erase_if(again_, is_it);
}

void VsockDialer::ask() {
  while (!waiting_.empty() && asked_.size() < kMostVsockDials) {
    const Attempt next = waiting_.front();
    waiting_.pop_front();
    const VsockDial dial{.number = next.number, .rule = next.rule};
    asked_.push_back(next);
    // One that cannot be sent is never answered: the host has gone, and `hear` finds that out.
    (void)channel_.send({.text = {reinterpret_cast<const char*>(&dial), sizeof(dial)}, .fds = {}});
  }
}

void VsockDialer::hear() {
  while (watch_ != 0 && hear_one()) continue;
  if (watch_ != 0) ask();
}

bool VsockDialer::hear_one() {
  auto packet = channel_.receive();
  if (!packet && packet.error().code() == std::errc::resource_unavailable_try_again) return false;
  // A socket that this process may not open is lost with its answer: it is the next one's.
  const bool lost = !packet && packet.error().code() == std::errc::bad_message;
  VsockDialed dialed;
  const bool whole = packet && *packet && (*packet)->text.size() == sizeof(dialed);
  if (whole) std::memcpy(&dialed, (*packet)->text.data(), sizeof(dialed));
  if (asked_.empty() || (!lost && (!whole || dialed.number != asked_.front().number))) {
    host_has_gone();
    return false;
  }
  const Attempt attempt = asked_.front();
  asked_.pop_front();
  if (lost) {
    answer_(attempt.number,
            fail(Error(std::errc::too_many_files_open,
                       "this process may open no more files; `ulimit -n` has the limit")));
    return true;
  }
  const bool connected = dialed.error == 0 && (*packet)->fds.size() == 1;
  if (connected) {
    answer_(attempt.number, std::move((*packet)->fds.front()));
  } else if (dialed.error != EAGAIN) {
    answer_(attempt.number,
            fail(Error::from_errno("connecting to", "a socket of the host", dialed.error)));
  } else {
    later(attempt);
  }
  return true;
}

void VsockDialer::later(Attempt attempt) {
  if (EventLoop::Clock::now() >= attempt.until) {
    return answer_(attempt.number,
                   fail(Error(std::errc::timed_out, "its program takes no more connections")));
  }
  again_.push_back(attempt);
  if (timer_ != 0) return;
  timer_ = loop_.after(kPause, [this] {
    timer_ = 0;
    std::ranges::move(again_, std::back_inserter(waiting_));
    again_.clear();
    if (watch_ != 0) ask();
  });
}

void VsockDialer::host_has_gone() {
  loop_.unwatch(std::exchange(watch_, 0));
  std::deque<Attempt> lost = std::exchange(waiting_, {});
  std::ranges::move(std::exchange(again_, {}), std::back_inserter(lost));
  std::ranges::move(std::exchange(asked_, {}), std::back_inserter(lost));
  for (const Attempt& attempt : lost) {
    answer_(attempt.number,
            fail(Error(std::errc::not_connected, "nobody connects sockets any more")));
  }
}

}  // namespace crosvm
