#include "base/event_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <optional>
#include <thread>
#include <vector>

namespace crosvm {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

class EventLoopTest : public testing::Test {
 protected:
  void turn() { ASSERT_TRUE(loop_->run_once(0ms)); }
  static Fd eventfd() { return std::move(make_eventfd().value()); }

  std::unique_ptr<EventLoop> loop_ = std::move(EventLoop::create().value());
};

TEST_F(EventLoopTest, WatchIsCalledWhileTheDescriptorIsReady) {
  Fd fd = eventfd();
  std::vector<uint32_t> calls;
  ASSERT_TRUE(loop_->watch(fd, EPOLLIN, [&](uint32_t events) { calls.push_back(events); }));
  turn();
  EXPECT_TRUE(calls.empty());
  signal_eventfd(fd);
  turn();
  turn();
  EXPECT_THAT(calls, ElementsAre(EPOLLIN, EPOLLIN));  // level-triggered
  drain_eventfd(fd);
  turn();
  EXPECT_EQ(calls.size(), 2u);
}

TEST_F(EventLoopTest, EdgesOfAnEventfdThatNobodyReadsAreItsSignals) {
  Fd fd = eventfd();
  signal_eventfd(fd);
  int calls = 0;
  ASSERT_TRUE(loop_->watch(fd, EPOLLIN | EPOLLET, [&](uint32_t) { ++calls; }));
  turn();
  turn();
  EXPECT_EQ(calls, 1);  // what was there before
  signal_eventfd(fd);
  signal_eventfd(fd);
  turn();
  turn();
  EXPECT_EQ(calls, 2);
}

TEST_F(EventLoopTest, SetEventsReplacesWhatIsWaitedFor) {
  Fd fd = eventfd();
  int calls = 0;
  auto id = loop_->watch(fd, 0, [&](uint32_t) { ++calls; });
  ASSERT_TRUE(id);
  turn();
  EXPECT_EQ(calls, 0);
  ASSERT_TRUE(loop_->set_events(*id, EPOLLOUT));
  turn();
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, HangupIsReportedWithoutBeingAskedFor) {
  std::array<int, 2> ends;
  ASSERT_EQ(::pipe(ends.data()), 0);
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  uint32_t seen = 0;
  ASSERT_TRUE(loop_->watch(reader, 0, [&](uint32_t events) { seen = events; }));
  writer = Fd();
  turn();
  EXPECT_TRUE(seen & EPOLLHUP);
}

TEST_F(EventLoopTest, DescriptorThatCannotBePolledIsAnError) {
  auto file = open_path("/proc/self/exe", 0);
  ASSERT_TRUE(file);
  auto id = loop_->watch(*file, EPOLLIN, [](uint32_t) {});
  ASSERT_FALSE(id);
  EXPECT_EQ(id.error().code(), std::errc::operation_not_permitted);
}

TEST_F(EventLoopTest, CallbackMayUnwatchItselfAndOutliveIt) {
  Fd fd = eventfd();
  signal_eventfd(fd);
  auto token = std::make_shared<int>(7);
  EventLoop::WatchId id = 0;
  int seen = 0;
  auto watched = loop_->watch(fd, EPOLLIN, [&, token](uint32_t) {
    loop_->unwatch(id);
    seen += *token;  // what the callback captured is still alive
  });
  id = watched.value();
  turn();
  turn();
  EXPECT_EQ(seen, 7);
  EXPECT_EQ(token.use_count(), 1);
}

TEST_F(EventLoopTest, UnwatchedWhileDueIsNotCalled) {
  Fd first = eventfd();
  Fd second = eventfd();
  signal_eventfd(first);
  signal_eventfd(second);
  EventLoop::WatchId ids[2] = {};
  int calls = 0;
  ids[0] = loop_->watch(first, EPOLLIN, [&](uint32_t) { ++calls, loop_->unwatch(ids[1]); }).value();
  ids[1] =
      loop_->watch(second, EPOLLIN, [&](uint32_t) { ++calls, loop_->unwatch(ids[0]); }).value();
  turn();
  EXPECT_EQ(calls, 1);  // whichever came first kept the other from running
}

TEST_F(EventLoopTest, NumberReusedWithinOneTurnDoesNotGetTheOldEvents) {
  Fd first = eventfd();
  auto second = std::make_unique<Fd>(eventfd());
  signal_eventfd(first);
  signal_eventfd(*second);
  EventLoop::WatchId second_id = 0;
  int replaced = 0;
  std::optional<Fd> fresh;
  auto replace = [&](uint32_t) {
    if (fresh) return;
    int number = second->get();
    loop_->unwatch(second_id);
    second.reset();
    fresh = eventfd();
    ASSERT_EQ(fresh->get(), number);
    ASSERT_TRUE(loop_->watch(*fresh, EPOLLIN, [&](uint32_t) { ++replaced; }));
  };
  ASSERT_TRUE(loop_->watch(first, EPOLLIN, replace));
  second_id = loop_->watch(*second, EPOLLIN, replace).value();
  turn();
  ASSERT_TRUE(fresh);
  EXPECT_EQ(replaced, 0);
}

TEST_F(EventLoopTest, LateUnwatchOfAClosedDescriptorSparesItsSuccessor) {
  auto old = std::make_unique<Fd>(eventfd());
  int number = old->get();
  EventLoop::WatchId old_id = loop_->watch(*old, EPOLLIN, [](uint32_t) {}).value();
  old.reset();
  Fd fresh = eventfd();
  ASSERT_EQ(fresh.get(), number);
  int calls = 0;
  ASSERT_TRUE(loop_->watch(fresh, EPOLLIN, [&](uint32_t) { ++calls; }));
  loop_->unwatch(old_id);
  signal_eventfd(fresh);
  turn();
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, TimersFireInOrderOfTimeThenOfRequest) {
  std::vector<int> order;
  auto now = EventLoop::Clock::now();
  loop_->at(now - 1ms, [&] { order.push_back(3); });
  loop_->at(now - 2ms, [&] { order.push_back(1); });
  loop_->at(now - 2ms, [&] { order.push_back(2); });
  turn();
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

TEST_F(EventLoopTest, TimerFiresOnceAndNotEarly) {
  int fired = 0;
  auto due = EventLoop::Clock::now() + 20ms;
  loop_->at(due, [&] { ++fired; });
  turn();
  EXPECT_EQ(fired, 0);
  while (fired == 0) ASSERT_TRUE(loop_->run_once(10s));
  EXPECT_GE(EventLoop::Clock::now(), due);
  turn();
  EXPECT_EQ(fired, 1);
}

TEST_F(EventLoopTest, EarlierTimerSetLaterRearmsTheWait) {
  bool early = false;
  loop_->after(1h, [] { FAIL(); });
  turn();
  loop_->after(1ms, [&] { early = true, loop_->stop(); });
  ASSERT_TRUE(loop_->run());
  EXPECT_TRUE(early);
}

TEST_F(EventLoopTest, CancelledTimerDoesNotFireEvenWhenDue) {
  int fired = 0;
  EventLoop::TimerId second = 0;
  auto now = EventLoop::Clock::now();
  loop_->at(now - 2ms, [&] { ++fired, loop_->cancel(second); });
  second = loop_->at(now - 1ms, [&] { ++fired; });
  loop_->cancel(12345);  // never existed
  turn();
  turn();
  EXPECT_EQ(fired, 1);
}

TEST_F(EventLoopTest, TimerThatResetsItselfDoesNotHoldUpTheRest) {
  int fired = 0;
  bool posted = false;
  std::function<void()> again = [&] {
    ++fired;
    loop_->at(EventLoop::Clock::time_point(), again);
  };
  again();
  loop_->post([&] { posted = true; });
  turn();
  EXPECT_EQ(fired, 2);
  EXPECT_TRUE(posted);
}

TEST_F(EventLoopTest, EndlessDelayIsAccepted) {
  loop_->after(EventLoop::Clock::duration::max(), [] { FAIL(); });
  turn();
}

TEST_F(EventLoopTest, PostsOfOneThreadRunInOrderOnTheLoop) {
  constexpr int kPosts = 1000;
  std::array<std::vector<int>, 3> seen;
  std::atomic<int> left = 3 * kPosts;
  std::vector<std::thread> threads;
  for (auto& mine : seen) {
    threads.emplace_back([&] {
      for (int i = 0; i < kPosts; ++i) {
        loop_->post([&, i] {
          mine.push_back(i);
          if (--left == 0) loop_->stop();
        });
      }
    });
  }
  ASSERT_TRUE(loop_->run());
  for (auto& thread : threads) thread.join();
  for (auto& mine : seen) {
    ASSERT_EQ(mine.size(), static_cast<size_t>(kPosts));
    EXPECT_TRUE(std::is_sorted(mine.begin(), mine.end()));
  }
}

TEST_F(EventLoopTest, StopKeepsTheRestForTheNextRun) {
  std::vector<int> ran;
  loop_->post([&] { ran.push_back(1), loop_->stop(); });
  loop_->post([&] { ran.push_back(2), loop_->stop(); });
  ASSERT_TRUE(loop_->run());
  EXPECT_THAT(ran, ElementsAre(1));
  ASSERT_TRUE(loop_->run());
  EXPECT_THAT(ran, ElementsAre(1, 2));
}

TEST_F(EventLoopTest, StopKeepsEdgesForTheNextRun) {
  std::array<Fd, 2> fds = {eventfd(), eventfd()};
  int calls = 0;
  for (Fd& fd : fds) {
    ASSERT_TRUE(loop_->watch(fd, EPOLLIN | EPOLLET, [&](uint32_t) { ++calls, loop_->stop(); }));
    signal_eventfd(fd);
  }
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(calls, 1);
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(calls, 2);
}

TEST_F(EventLoopTest, StopFromAnotherThreadBeforeOrDuringRunEndsIt) {
  loop_->stop();
  ASSERT_TRUE(loop_->run());
  std::thread other([&] { loop_->stop(); });
  ASSERT_TRUE(loop_->run());
  other.join();
}

TEST_F(EventLoopTest, CallbacksMayCallTheLoopWhileItIsDestroyed) {
  struct Guard {
    EventLoop* loop;
    EventLoop::WatchId watch;
    EventLoop::TimerId timer;
    ~Guard() { loop->unwatch(watch), loop->cancel(timer); }
  };
  Fd fd = eventfd();
  auto guard = std::make_shared<Guard>(Guard{loop_.get(), 0, 0});
  guard->watch = loop_->watch(fd, EPOLLIN, [guard](uint32_t) {}).value();
  guard->timer = loop_->after(1h, [guard] {});
  loop_->post([guard] {});
  guard.reset();
  loop_.reset();
}

}  // namespace
}  // namespace crosvm
