#include "virtio/rig/rig.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <tuple>

#include "virtio/rig/echo_device.h"
#include "virtio/ring.h"

namespace crosvm {
namespace {

std::vector<std::byte> pattern(size_t size, unsigned seed) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = std::byte(seed * 31 + i * 7);
  return bytes;
}

class EveryRig : public testing::TestWithParam<std::tuple<RigPlace, bool, bool, bool, bool>> {
 protected:
  static std::string text() { return std::get<4>(GetParam()) ? "shuffled,size=64" : "size=64"; }
  static RigOptions options() {
    const auto [place, packed, event_idx, indirect, shuffled] = GetParam();
    return {.place = place, .packed = packed, .event_idx = event_idx, .indirect = indirect};
  }
};

TEST_P(EveryRig, AnswersEveryRequestOnceWithItsBytes) {
  auto rig = make_rig<EchoFactory>(text(), options());
  for (unsigned round = 0; round < 300; ++round) {  // over the end of the ring, and again
    RigDriver& driver = rig.driver(round % 2);
    std::map<RigToken, std::vector<std::byte>> sent;
    const unsigned at_once = 1 + round % 8;
    for (unsigned i = 0; i < at_once; ++i) {
      auto bytes = pattern(1 + (round * 37 + i) % 200, round + i);
      const auto half = std::span(bytes).first(bytes.size() / 2);
      const RigToken token =
          driver.add({readable(half), readable(std::span(bytes).subspan(half.size())),
                      writable(half.size()), writable(bytes.size() - half.size())});
      sent[token] = std::move(bytes);
    }
    driver.kick();
    while (!sent.empty()) {
      const RigUsed used = driver.wait_used();
      ASSERT_TRUE(used.arrived) << "round " << round;
      ASSERT_TRUE(sent.contains(used.token));
      EXPECT_EQ(used.bytes, sent[used.token]);
      EXPECT_EQ(used.written, used.bytes.size());
      sent.erase(used.token);
    }
    ASSERT_EQ(driver.outstanding(), 0u);
  }
  EXPECT_FALSE(rig.needs_reset());
}

TEST_P(EveryRig, GoesOnAfterRestartAndReset) {
  auto rig = make_rig<EchoFactory>(text(), options());
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 3; ++i) {
      rig.driver(1).send({readable("ping"), writable(4)});
      EXPECT_EQ(rig.driver(1).wait_used().bytes, readable("ping").bytes);
    }
    rig.driver(0).send({readable("x"), writable(1)});  // perhaps in flight
    if (round % 3 == 2) {
      rig.reset();
      continue;
    }
    rig.restart();
    EXPECT_EQ(rig.driver(0).wait_used().last_byte(), 'x');
  }
}

std::string name_of(const testing::TestParamInfo<EveryRig::ParamType>& info) {
  const auto [place, packed, event_idx, indirect, shuffled] = info.param;
  return std::string(place == RigPlace::kThread ? "Thread" : "Inline") +
         (packed ? "Packed" : "Split") + (event_idx ? "EventIdx" : "") +
         (indirect ? "Indirect" : "") + (shuffled ? "Shuffled" : "");
}

INSTANTIATE_TEST_SUITE_P(Rigs, EveryRig,
                         testing::Combine(testing::Values(RigPlace::kThread, RigPlace::kInline),
                                          testing::Bool(), testing::Bool(), testing::Bool(),
                                          testing::Bool()),
                         name_of);

TEST(RigMemory, GivesBuffersBackToTheNext) {
  RigMemory memory;
  const uint64_t bytes = (RigMemory::kRegionBytes - RigMemory::kBorderRoom) / 2;
  for (int round = 0; round < 100; ++round) {
    std::vector<GuestAddress> taken;
    for (int i = 0; i < 6; ++i) taken.push_back(memory.allocate(bytes));
    for (const GuestAddress address : taken) memory.free(address);
  }
  EXPECT_TRUE(memory.guest().slice(memory.allocate(64), 64).has_value());
}

}  // namespace
}  // namespace crosvm
