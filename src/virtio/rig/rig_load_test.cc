#include "virtio/rig/rig_load.h"

#include <gtest/gtest.h>

#include <thread>

#include "virtio/rig/echo_device.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

std::vector<RigLoad::Slot> make_slots(Rig& rig, size_t count, bool table) {
  std::vector<RigLoad::Slot> slots(count);
  for (RigLoad::Slot& slot : slots) {
    slot.buffers = {
        {.address = rig.memory().allocate(64), .length = 64, .writable = false},
        {.address = rig.memory().allocate(64), .length = 64, .writable = true},
    };
    if (table) slot.table = rig.memory().allocate(32);
  }
  return slots;
}

class RigLoadTest : public testing::TestWithParam<std::tuple<bool, bool>> {
 protected:
  static RigOptions options() { return {.packed = std::get<0>(GetParam())}; }
  static bool table() { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Rings, RigLoadTest, testing::Combine(testing::Bool(), testing::Bool()));

TEST_P(RigLoadTest, CountsEveryRequestOfAClosedLoop) {
  auto rig = make_rig<EchoFactory>("", options());
  for (const bool spin : {false, true}) {
    const auto slots = make_slots(rig, 32, table());
    RigLoad load(rig.driver(0), slots);
    std::vector<uint8_t> sent(slots.size());
    const auto report = load.run(
        {.duration = std::chrono::seconds(60),
         .requests = 5000,
         .spin = spin,
         .prepare =
             [&](size_t slot) {
               ++sent[slot];
               CHECK(rig.memory().guest().write(slots[slot].buffers[0].address, sent[slot]));
             },
         .judge =
             [&](size_t slot, uint32_t written) {
               const auto got = rig.memory().guest().read<uint8_t>(slots[slot].buffers[1].address);
               return written == 64 && got == sent[slot];
             }});
    EXPECT_FALSE(report.stalled);
    EXPECT_EQ(report.completed, 5000u);
    EXPECT_EQ(report.failed, 0u);
    EXPECT_EQ(report.latency.total(), 5000u);
    EXPECT_GT(report.kicks, 0u);
    EXPECT_GT(report.latency.percentile_ns(0.5), 0u);
    rig.reset();
  }
}

TEST_P(RigLoadTest, SendsAtARateInAnOpenLoop) {
  auto rig = make_rig<EchoFactory>("shuffled", options());
  RigLoad load(rig.driver(1), make_slots(rig, 16, table()));
  const auto report =
      load.run({.duration = std::chrono::seconds(60), .requests = 400, .rate = 4000});
  EXPECT_EQ(report.completed, 400u);
  EXPECT_GE(report.elapsed, std::chrono::microseconds(399 * 250));
}

TEST_P(RigLoadTest, SaysWhenTheDeviceNeedsAReset) {
  auto rig = make_rig<EchoFactory>("", options());
  auto slots = make_slots(rig, 4, false);
  slots[2].buffers[0].address = RigMemory::kLowEnd;
  RigLoad load(rig.driver(0), slots);
  EXPECT_TRUE(load.run({.duration = std::chrono::seconds(60)}).stalled);
}

TEST(RigLoad, LoadsSeveralQueuesAtOnce) {
  auto rig = make_rig<EchoFactory>("queues=3");
  std::vector<RigLoad> loads;
  for (uint16_t queue = 0; queue < 3; ++queue) {
    loads.emplace_back(rig.driver(queue), make_slots(rig, 8, true));
  }
  std::vector<RigLoad::Report> reports(3);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      reports[i] = loads[i].run({.duration = std::chrono::seconds(60), .requests = 1000});
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& report : reports) EXPECT_EQ(report.completed, 1000u);
}

TEST(LatencyHistogram, FindsPercentilesToWithinASixteenth) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.percentile_ns(0.5), 0u);
  for (uint64_t ns = 1; ns <= 100'000; ++ns) histogram.count(ns);
  for (const double share : {0.01, 0.5, 0.9, 0.99, 1.0}) {
    const double exact = share * 100'000;
    EXPECT_GE(static_cast<double>(histogram.percentile_ns(share)), exact) << share;
    EXPECT_LE(static_cast<double>(histogram.percentile_ns(share)), exact * 17 / 16 + 1) << share;
  }
  LatencyHistogram other;
  other.count(UINT64_MAX);
  other.count(0);
  histogram.add(other);
  EXPECT_EQ(histogram.total(), 100'002u);
  EXPECT_EQ(histogram.highest_ns(), UINT64_MAX);
  EXPECT_EQ(histogram.percentile_ns(1.0), UINT64_MAX);
}

}  // namespace
}  // namespace crosvm
