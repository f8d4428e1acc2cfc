#include "devices/rng/rng_device.h"

#include <gtest/gtest.h>
#include <linux/virtio_ids.h>

#include <algorithm>
#include <set>

#include "virtio/rig/hostile_chains.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

class RngDeviceTest : public testing::TestWithParam<std::tuple<RigPlace, bool>> {
 protected:
  static RigOptions options() {
    return {.place = std::get<0>(GetParam()), .packed = std::get<1>(GetParam())};
  }
};

TEST_P(RngDeviceTest, IsAnEntropyDeviceWithOneQueue) {
  auto rig = make_rig<RngFactory>("", options());
  EXPECT_EQ(rig.info().device_type, unsigned{VIRTIO_ID_RNG});
  EXPECT_EQ(rig.info().queue_sizes, std::vector<uint16_t>{256});
  EXPECT_TRUE(rig.info().config.empty());
}

TEST_P(RngDeviceTest, FillsEveryWritableByte) {
  auto rig = make_rig<RngFactory>("", options());
  std::set<std::vector<std::byte>> seen;
  for (int round = 0; round < 300; ++round) {
    rig.driver(0).send({readable("ignored"), writable(16), writable(3), writable(45)});
    const RigUsed used = rig.driver(0).wait_used();
    ASSERT_TRUE(used.arrived);
    EXPECT_EQ(used.written, 64u);
    EXPECT_TRUE(seen.insert(used.bytes).second) << "the same 64 bytes twice";
  }
}

TEST_P(RngDeviceTest, EveryByteOfALongRequestIsRandom) {
  auto rig = make_rig<RngFactory>("", options());
  constexpr size_t kBytes = 1 << 20;
  rig.driver(0).send({writable(kBytes - 1), writable(1)});
  const RigUsed used = rig.driver(0).wait_used();
  ASSERT_EQ(used.written, kBytes);
  // A byte value has a share of 1/256 in any 64 KiB: 256 times, with a deviation of 16.
  for (size_t start = 0; start < kBytes; start += 64 << 10) {
    const auto part = std::span(used.bytes).subspan(start, 64 << 10);
    EXPECT_LT(std::ranges::count(part, kRigFiller), 512) << "at " << start;
  }
}

TEST_P(RngDeviceTest, ARequestWithoutRoomComesBackEmpty) {
  auto rig = make_rig<RngFactory>("", options());
  rig.driver(0).send({readable("only to read")});
  const RigUsed used = rig.driver(0).wait_used();
  EXPECT_TRUE(used.arrived);
  EXPECT_EQ(used.written, 0u);
  EXPECT_FALSE(rig.needs_reset());
}

TEST_P(RngDeviceTest, SurvivesGeneratedChains) {
  auto rig = make_rig<RngFactory>("", options());
  const HostileResult result = play_hostile_chains(
      rig, {.judge = [](const HostileChain& chain, const DriverRing::Used& used) -> std::string {
              uint64_t room = 0;
              for (const DriverBuffer& buffer : chain.buffers) {
                room += buffer.writable ? buffer.length : 0;
              }
              return used.written == room ? "" : "not all that was asked for was written";
            },
            .may_refuse = false});
  EXPECT_EQ(result.failure, "");
  EXPECT_GT(result.answered, 100u);
  EXPECT_GT(result.resets, 100u);
}

INSTANTIATE_TEST_SUITE_P(Rigs, RngDeviceTest,
                         testing::Combine(testing::Values(RigPlace::kThread, RigPlace::kInline,
                                                          RigPlace::kWorker),
                                          testing::Bool()),
                         [](const auto& rig) {
                           return name_of(std::get<0>(rig.param)) +
                                  (std::get<1>(rig.param) ? "Packed" : "");
                         });

/// A request of 2 GiB: many buffers on the same memory, which a driver may do.
TEST(RngDeviceTurnsTest, ALongRequestDoesNotKeepTheLoop) {
  auto rig = make_rig<RngFactory>("", {.place = RigPlace::kInline});
  constexpr uint32_t kBytes = 8 << 20;
  RigMemory& memory = rig.memory();
  const DriverBuffer big{.address = memory.allocate(kBytes), .length = kBytes, .writable = true};
  const std::vector<DriverBuffer> buffers(256, big);  // 2 GiB
  DriverRing& ring = rig.driver(0).ring();
  ring.add(buffers, memory.allocate(16 * buffers.size()));
  ring.publish();
  rig.driver(0).kick_anyway();
  const auto before = std::chrono::steady_clock::now();
  for (int turn = 0; turn < 5; ++turn) rig.run_once();
  // Five turns of 64 KiB; all of it would take seconds.
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(1));
  EXPECT_FALSE(ring.take_used());
  rig.reset();  // in the middle of it
  rig.driver(0).send({writable(8)});
  EXPECT_EQ(rig.driver(0).wait_used().written, 8u);
}

TEST(RngDeviceTurnsTest, AStopInTheMiddleStartsTheRequestAgain) {
  auto rig = make_rig<RngFactory>("", {.place = RigPlace::kInline});
  constexpr size_t kBytes = 4 << 20;
  rig.driver(0).send({writable(kBytes)});
  for (int turn = 0; turn < 3; ++turn) rig.run_once();
  EXPECT_EQ(rig.driver(0).try_used(), std::nullopt);
  rig.restart();
  EXPECT_EQ(rig.driver(0).wait_used().written, kBytes);
}

TEST(RngConfigTest, HasNoKeys) {
  EXPECT_TRUE(device_type<RngFactory>().check("").has_value());
  EXPECT_FALSE(device_type<RngFactory>().check("path=/dev/urandom").has_value());
}

}  // namespace
}  // namespace crosvm
