#include "base/shared_eventfd.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <future>

namespace crosvm {
namespace {

using namespace std::chrono_literals;

TEST(SharedEventfd, IsSignalled) {
  const Fd fd = *make_eventfd();
  signal_shared_eventfd(fd);
  signal_shared_eventfd(fd);
  EXPECT_EQ(drain_eventfd(fd), 2u);
}

TEST(SharedEventfd, APeerThatFillsItDoesNotHoldUsUp) {
  const Fd fd = *make_eventfd();
  const Fd of_peer = *fd.duplicate();
  const uint64_t most = UINT64_MAX - 1;
  ASSERT_EQ(::write(of_peer.get(), &most, sizeof(most)), 8);
  ASSERT_EQ(::fcntl(of_peer.get(), F_SETFL, 0), 0) << "writes wait from now on";
  auto signalled = std::async(std::launch::async, [&] { signal_shared_eventfd(fd); });
  EXPECT_EQ(signalled.wait_for(20s), std::future_status::ready);
  EXPECT_EQ(drain_eventfd(fd), most) << "lets go of a write that waits";
}

}  // namespace
}  // namespace crosvm
