#include "shout_device.h"

#include <gtest/gtest.h>

#include "virtio/rig/hostile_chains.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

std::string answer_to(Rig& rig, std::string_view text, size_t room) {
  rig.driver(0).send({readable(text), writable(room)});
  const RigUsed used = rig.driver(0).wait_used();
  return {reinterpret_cast<const char*>(used.bytes.data()), used.written};
}

TEST(ShoutDeviceTest, AnswersInUpperCase) {
  auto rig = make_rig<ShoutFactory>("");
  EXPECT_EQ(answer_to(rig, "quiet, please", 32), "QUIET, PLEASE");
  EXPECT_EQ(answer_to(rig, "no room for all", 7), "NO ROOM");
}

TEST(ShoutDeviceTest, ExclaimsWhenAskedTo) {
  auto rig = make_rig<ShoutFactory>("exclaim,queue-size=8");
  EXPECT_EQ(rig.info().queue_sizes, std::vector<uint16_t>{8});
  EXPECT_EQ(answer_to(rig, "hear me", 32), "HEAR ME!");
  EXPECT_FALSE(device_type<ShoutFactory>().check("queue-size=9").has_value());
}

TEST(ShoutDeviceTest, SurvivesWhatADriverMakesUp) {
  auto rig = make_rig<ShoutFactory>("");
  EXPECT_EQ(play_hostile_chains(rig, {.may_refuse = false}).failure, "");
}

}  // namespace
}  // namespace crosvm
