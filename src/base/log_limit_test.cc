#include "base/log_limit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/log.h"

namespace crosvm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

class LogLimitTest : public testing::Test {
 protected:
  LogLimitTest() { EXPECT_TRUE(log::configure({.use_syslog = false})); }
  const LogLimit::Clock::time_point start_ = LogLimit::Clock::now();
};

TEST_F(LogLimitTest, LetsSoManyThroughEachSecond) {
  LogLimit limit("jokes", 3);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limit.allows(start_ + i * 100ms)) << i;
  EXPECT_FALSE(limit.allows(start_ + 300ms));
  EXPECT_FALSE(limit.allows(start_ + 999ms));
  testing::internal::CaptureStderr();
  EXPECT_TRUE(limit.allows(start_ + 1s));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("2 more jokes were not logged"));
}

TEST_F(LogLimitTest, SaysNothingWhenNothingWasHeldBack) {
  LogLimit limit("jokes", 3);
  testing::internal::CaptureStderr();
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(limit.allows(start_ + i * 500ms)) << i;
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(LogLimitTest, ThreadsShareTheLimit) {
  LogLimit limit("jokes", 50);
  std::atomic<int> through = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 100; ++j) through += limit.allows(start_) ? 1 : 0;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(through, 50);
}

}  // namespace
}  // namespace crosvm
