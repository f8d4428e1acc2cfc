#include "jail/spawner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>

namespace crosvm {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

TEST(SpawnerTest, EndsWithItsOwner) {
  auto spawner = Spawner::start();
  ASSERT_TRUE(spawner) << spawner.error().what();
  const pid_t pid = (*spawner)->pid();
  const Clock::time_point start = Clock::now();
  spawner->reset();
  EXPECT_LT(Clock::now() - start, seconds(5)) << "it was asked, not killed";
  EXPECT_EQ(::waitpid(pid, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(SpawnerTest, OneThatStandsStillIsKilled) {
  auto spawner = Spawner::start();
  ASSERT_TRUE(spawner) << spawner.error().what();
  const pid_t pid = (*spawner)->pid();
  ::kill(pid, SIGSTOP);
  ::alarm(30);  // waiting for ever is a failure
  testing::internal::CaptureStderr();
  spawner->reset();
  ::alarm(0);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::HasSubstr("the spawner of device processes"));
  EXPECT_EQ(::waitpid(pid, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

}  // namespace
}  // namespace crosvm
