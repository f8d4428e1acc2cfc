#include "devices/console/console_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "devices/console/console_device.h"

namespace crosvm {
namespace {

using ::testing::HasSubstr;

Result<ConsoleConfig> parse(std::string_view text) {
  return parse_console_config(TRY(KeyValues::parse(text)));
}
std::string error_of(std::string_view text) {
  auto config = parse(text);
  return config ? "no error" : config.error().what();
}

TEST(ConsoleConfigTest, TheTextOfAConfigurationParsesToIt) {
  const ConsoleConfig config{.ports = {{.output = "/tmp/a b,c]",
                                        .input = "quote\"back\\slash'",
                                        .sizes = "s",
                                        .name = "x",
                                        .console = true,
                                        .timestamp = true},
                                       {.output = {}, .input = {}, .sizes = {}, .name = {}}},
                             .queue_sizes = {2, 32768}};
  auto parsed = parse(console_config_text(config));
  ASSERT_TRUE(parsed) << parsed.error().what() << console_config_text(config);
  EXPECT_EQ(*parsed, config);
}

TEST(ConsoleConfigTest, NamesAndSeveralPortsNeedControlQueues) {
  EXPECT_FALSE(parse("ports=[[]]")->multiport());
  EXPECT_FALSE(parse("ports=[[console]]")->multiport());
  EXPECT_TRUE(parse("ports=[[name=n]]")->multiport());
  EXPECT_TRUE(parse("ports=[[],[]]")->multiport());
}

TEST(ConsoleConfigTest, RefusesWhatCannotBe) {
  EXPECT_THAT(error_of(""), HasSubstr("ports"));
  EXPECT_THAT(error_of("ports=[]"), HasSubstr("1 to 31 ports"));
  std::string many = "ports=[";
  for (int i = 0; i < 32; ++i) many += "[],";
  EXPECT_THAT(error_of(many + "]"), HasSubstr("1 to 31 ports, not 32"));
  EXPECT_THAT(error_of("ports=[[name=\"\"]]"), HasSubstr("give 1 to 255"));
  EXPECT_THAT(error_of("ports=[[name=" + std::string(256, 'n') + "]]"), HasSubstr("256 bytes"));
  EXPECT_THAT(error_of("ports=[[]],queue-sizes=[256,0]"), HasSubstr("queue size 0"));
  EXPECT_THAT(error_of("ports=[[]],queue-sizes=[48,256]"), HasSubstr("queue size 48"));
  EXPECT_THAT(error_of("ports=[[]],queue-sizes=[65535,256]"), HasSubstr("power of two"));
}

TEST(ConsoleConfigTest, DescriptorsMustMatch) {
  auto loop = *EventLoop::create();
  struct NoEvents : DeviceEvents {
    void config_changed() override {}
    void needs_reset(std::string) override {}
  } events;
  auto device = ConsoleFactory::create(*parse("ports=[[output=o]]"), {},
                                       {.loop = *loop, .events = events, .rings = {}});
  ASSERT_FALSE(device);
  EXPECT_THAT(device.error().what(), HasSubstr("do not match"));
}

TEST(ConsoleConfigTest, OpenNamesWhatItCannotOpen) {
  auto opened = ConsoleFactory::open(*parse("ports=[[input=/nonexistent/file]]"));
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().what(), HasSubstr("/nonexistent/file"));
}

}  // namespace
}  // namespace crosvm
