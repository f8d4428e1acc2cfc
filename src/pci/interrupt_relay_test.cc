#include "pci/interrupt_relay.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>
#include <vector>

namespace crosvm {
namespace {

using namespace std::chrono_literals;

class InterruptRelayTest : public testing::Test {
 protected:
  /// Whether `condition` comes true within ten seconds.
  template <class Condition>
  static bool eventually(Condition condition) {
    for (auto end = std::chrono::steady_clock::now() + 10s; std::chrono::steady_clock::now() < end;
         std::this_thread::sleep_for(100us)) {
      if (condition()) return true;
    }
    return false;
  }

  std::unique_ptr<InterruptRelay> relay_ = *InterruptRelay::create();
  Fd event_ = *make_eventfd();
  std::atomic<int> calls_ = 0;
};

TEST_F(InterruptRelayTest, CallsOnItsOwnThreadForEverySignal) {
  std::atomic<bool> elsewhere = false;
  auto id = relay_->watch(event_, [&, here = std::this_thread::get_id()] {
    drain_eventfd(event_);
    elsewhere = std::this_thread::get_id() != here;
    ++calls_;
  });
  EXPECT_NE(id, 0U);
  for (int i = 1; i <= 3; ++i) {
    signal_eventfd(event_);
    EXPECT_TRUE(eventually([&] { return calls_ == i; }));
  }
  EXPECT_TRUE(elsewhere);
  relay_->forget(id);
}

TEST_F(InterruptRelayTest, ASignalFromBeforeIsNoticed) {
  signal_eventfd(event_);
  auto id = relay_->watch(event_, [&] {
    drain_eventfd(event_);
    ++calls_;
  });
  EXPECT_TRUE(eventually([&] { return calls_ == 1; }));
  relay_->forget(id);
}

TEST_F(InterruptRelayTest, AfterForgetNothingIsCalledAndTheSignalStays) {
  auto id = relay_->watch(event_, [&] { ++calls_; });
  relay_->forget(id);
  signal_eventfd(event_);
  auto other = *make_eventfd();
  auto other_id = relay_->watch(other, [&] { drain_eventfd(other); });
  signal_eventfd(other);
  EXPECT_TRUE(eventually([&] { return drain_eventfd(other) == 0; }));
  relay_->forget(other_id);
  EXPECT_EQ(calls_, 0);
  EXPECT_EQ(drain_eventfd(event_), 1U);
}

TEST_F(InterruptRelayTest, ForgetWaitsForTheRunningCallAndUnwatchDoesNot) {
  std::promise<void> inside;
  std::atomic<bool> go_on = false;
  std::atomic<bool> left = false;
  auto id = relay_->watch(event_, [&] {
    drain_eventfd(event_);
    inside.set_value();
    while (!go_on) std::this_thread::yield();
    std::this_thread::sleep_for(20ms);
    left = true;
  });
  signal_eventfd(event_);
  inside.get_future().wait();
  relay_->unwatch(id);
  EXPECT_FALSE(left);
  go_on = true;
  relay_->forget(id);
  EXPECT_TRUE(left);
}

TEST_F(InterruptRelayTest, ACallMayWatchAndUnwatch) {
  Fd second = *make_eventfd();
  std::atomic<InterruptRelay::WatchId> first_id = 0;
  std::atomic<InterruptRelay::WatchId> second_id = 0;
  first_id = relay_->watch(event_, [&] {
    drain_eventfd(event_);
    if (!eventually([&] { return first_id != 0; })) return;
    relay_->unwatch(first_id);
    second_id = relay_->watch(second, [&] {
      drain_eventfd(second);
      ++calls_;
    });
  });
  signal_eventfd(event_);
  signal_eventfd(second);
  EXPECT_TRUE(eventually([&] { return calls_ == 1; }));
  relay_->forget(first_id);
  relay_->forget(second_id);
}

TEST_F(InterruptRelayTest, OneDescriptorIsWatchedAgainAtOnce) {
  for (int i = 0; i < 1000; ++i) {
    auto id = relay_->watch(event_, [&] { calls_ += static_cast<int>(drain_eventfd(event_)); });
    if (i % 3 == 0) signal_eventfd(event_);
    if (i % 50 == 0) {
      relay_->forget(id);
    } else {
      relay_->unwatch(id);
    }
  }
  auto last = relay_->watch(event_, [&] { calls_ += static_cast<int>(drain_eventfd(event_)); });
  EXPECT_TRUE(eventually([&] { return calls_ == 334; })) << calls_;
  relay_->forget(last);
}

TEST_F(InterruptRelayTest, ManyThreadsWatchAndForget) {
  std::vector<std::thread> threads;
  std::atomic<int> failures = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        Fd event = *make_eventfd();
        std::atomic<bool> called = false;
        auto id = relay_->watch(event, [&] {
          drain_eventfd(event);
          called = true;
        });
        signal_eventfd(event);
        if (!eventually([&] { return called.load(); })) ++failures;
        relay_->forget(id);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}

}  // namespace
}  // namespace crosvm
