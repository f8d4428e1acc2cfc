#include "base/wait_ready.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include <thread>

#include "base/socket_pair.h"

namespace crosvm {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kLong = 60s;  // no test waits for it

class WaitReadyTest : public testing::Test {
 protected:
  static Waited wait(const Fd& fd, Clock::time_point until, const Fd* interrupt = nullptr) {
    auto waited = wait_ready(fd, POLLIN, until, interrupt);
    EXPECT_TRUE(waited.has_value());
    return waited.value_or(Waited::kLate);
  }
  Fd event_ = *make_eventfd();
  Fd interrupt_ = *make_eventfd();
};

TEST_F(WaitReadyTest, EndsWhenTheDescriptorIsReady) {
  std::jthread later([this] {
    std::this_thread::sleep_for(10ms);
    signal_eventfd(event_);
  });
  EXPECT_EQ(wait(event_, Clock::now() + kLong, &interrupt_), Waited::kReady);
  EXPECT_EQ(wait(event_, Clock::now(), &interrupt_), Waited::kReady) << "even without time";
}

TEST_F(WaitReadyTest, EndsWhenItsPeerHasGone) {
  FdPair pair = *make_socket_pair(SOCK_STREAM, "a test");
  pair.theirs = {};
  EXPECT_EQ(wait(pair.ours, Clock::now() + kLong), Waited::kReady);
}

TEST_F(WaitReadyTest, EndsWhenTheTimeIsUpAndNotBefore) {
  const auto until = Clock::now() + 20ms;
  EXPECT_EQ(wait(event_, until, &interrupt_), Waited::kLate);
  EXPECT_GE(Clock::now(), until);
  EXPECT_EQ(wait(event_, until - 1h), Waited::kLate);
  EXPECT_EQ(wait(Fd(), Clock::now() + 1ms), Waited::kLate) << "nothing to wait for but the time";
}

TEST_F(WaitReadyTest, IsInterruptedAndStaysSo) {
  std::jthread later([this] {
    std::this_thread::sleep_for(10ms);
    signal_eventfd(interrupt_);
  });
  EXPECT_EQ(wait(event_, Clock::now() + kLong, &interrupt_), Waited::kInterrupted);
  EXPECT_EQ(wait(Fd(), Clock::now() + kLong, &interrupt_), Waited::kInterrupted);
  signal_eventfd(event_);
  EXPECT_EQ(wait(event_, Clock::now() + kLong, &interrupt_), Waited::kInterrupted)
      << "a peer that always has something ready does not keep it from that";
}

TEST_F(WaitReadyTest, ASignalAloneEndsNothing) {
  struct sigaction action{};
  action.sa_handler = [](int) {};
  struct sigaction before{};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &before), 0);
  const auto until = Clock::now() + 100ms;
  std::jthread later([thread = ::pthread_self()] {
    std::this_thread::sleep_for(10ms);
    ::pthread_kill(thread, SIGUSR1);
  });
  EXPECT_EQ(wait(event_, until), Waited::kLate);
  EXPECT_GE(Clock::now(), until);
  later.join();
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_F(WaitReadyTest, AnUnusableTimeIsALongOne) {
  signal_eventfd(event_);
  EXPECT_EQ(wait(event_, Clock::time_point::max()), Waited::kReady);
}

}  // namespace
}  // namespace crosvm
