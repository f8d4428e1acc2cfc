#include "virtio/rig/sleeping_load.h"

#include <gtest/gtest.h>

#include "virtio/rig/echo_device.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

/// Rings alone: the device has answered at once and falls asleep while the driver adds more.
class SleepingLoadTest : public testing::TestWithParam<std::tuple<bool, bool>> {};
INSTANTIATE_TEST_SUITE_P(Rings, SleepingLoadTest,
                         testing::Combine(testing::Bool(), testing::Bool()));

TEST_P(SleepingLoadTest, NoWakeUpIsLostInARing) {
  const auto [packed, later] = GetParam();
  auto rig = make_rig<EchoFactory>("", {.packed = packed});
  std::vector<RigLoad::Slot> slots(64);
  for (RigLoad::Slot& slot : slots) {
    slot.buffers = {{rig.memory().allocate(8), 8, false}, {rig.memory().allocate(8), 8, true}};
  }
  SleepingLoad load(rig.driver(0), slots);
  const auto report =
      load.run({.requests = 50'000,
                .kernel = later ? SleepingLoad::Kernel::k6_4 : SleepingLoad::Kernel::k6_1,
                .pause = std::chrono::microseconds(8),
                .judge = [](size_t, uint32_t written) { return written == 8; }});
  EXPECT_EQ(report.stall, "");
  EXPECT_EQ(report.completed, 50'000U);
  EXPECT_EQ(report.failed, 0U);
}

TEST(SleepingLoad, SaysWhereItStandsStill) {
  auto rig = make_rig<EchoFactory>("");
  rig.stop_queue(0);
  SleepingLoad load(rig.driver(0),
                    {{.buffers = {{rig.memory().allocate(8), 8, true}}, .table = {}}});
  const auto report = load.run({.requests = 2, .patience = std::chrono::milliseconds(50)});
  EXPECT_EQ(report.completed, 0U);
  EXPECT_NE(report.stall.find("after 0 requests with 1 out"), std::string::npos) << report.stall;
}

}  // namespace
}  // namespace crosvm
