#include "cli/restart_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(RestartDevicesTest, TakesKindsWhoseRequestsMayBeExecutedTwice) {
  EXPECT_THAT(*parse_restart_devices("block"), ElementsAre("block"));
  EXPECT_THAT(*parse_restart_devices("block,rng"), ElementsAre("block", "rng"));
  EXPECT_THAT(*parse_restart_devices("net"), ElementsAre("net"));
}

TEST(RestartDevicesTest, RefusesOthersWithTheReason) {
  auto error = [](std::string_view value) {
    auto parsed = parse_restart_devices(value);
    return parsed ? "no error" : parsed.error().what();
  };
  EXPECT_THAT(error("block,console"), AllOf(HasSubstr("console"), HasSubstr("twice"),
                                            HasSubstr("some of block, net, rng")));
  EXPECT_THAT(error("disk"), AllOf(HasSubstr("`disk`"), HasSubstr("block, net, rng")));
  EXPECT_THAT(error(""), HasSubstr("``"));
  EXPECT_THAT(error("block,"), HasSubstr("``"));
}

}  // namespace
}  // namespace crosvm
