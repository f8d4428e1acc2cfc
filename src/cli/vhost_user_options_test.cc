#include "cli/vhost_user_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/command_line.h"
#include "cli/run_command.h"

namespace crosvm {
namespace {

using testing::HasSubstr;

std::string error_of(std::string_view text) {
  auto request = parse_vhost_user(text);
  return request ? "no error" : request.error().what();
}

Result<Config> config_of(std::vector<std::string_view> arguments) {
  arguments.insert(arguments.begin(), "run");
  arguments.push_back("kernel");
  const CommandLine line = TRY(parse_command_line(root_command(), arguments));
  TRY(check_supported(line));
  return make_config(TRY(read_run_options(line)));
}

TEST(VhostUserOptionsTest, TheTypeComesFirstAndMayGoWithoutItsKey) {
  auto request = parse_vhost_user("block,socket=/run/disk.sock");
  ASSERT_TRUE(request) << request.error().what();
  EXPECT_EQ(request->type, "block");
  EXPECT_EQ(request->name(), "vu-block");
  EXPECT_EQ(request->device_type, 2u);
  EXPECT_EQ(request->socket, "/run/disk.sock");
  EXPECT_EQ(request->max_queue_size, 256u);
  EXPECT_EQ(request->pci_address, std::nullopt);
  EXPECT_EQ(parse_vhost_user("type=wl,socket=s")->device_type, 63u);
}

TEST(VhostUserOptionsTest, EveryTypeHasItsVirtioNumber) {
  const std::pair<std::string_view, uint32_t> kNumbers[] = {
      {"net", 1},   {"block", 2},    {"console", 3},         {"rng", 4},
      {"scsi", 8},  {"balloon", 5},  {"mac80211-hwsim", 29}, {"9p", 9},
      {"gpu", 16},  {"input", 18},   {"video-encoder", 30},  {"vsock", 19},
      {"fs", 26},   {"iommu", 23},   {"video-decoder", 31},  {"sound", 25},
      {"pmem", 27}, {"scmi", 32},    {"media", 48},          {"wl", 63},
      {"tpm", 62},  {"pvclock", 61},
  };
  for (auto [type, number] : kNumbers) {
    auto request = parse_vhost_user(std::string(type) + ",socket=s");
    ASSERT_TRUE(request) << type;
    EXPECT_EQ(request->device_type, number) << type;
  }
}

TEST(VhostUserOptionsTest, QueueSizesAreRoundedDownToAPowerOfTwo) {
  EXPECT_EQ(parse_vhost_user("rng,socket=s,max-queue-size=1000")->max_queue_size, 512u);
  EXPECT_EQ(parse_vhost_user("rng,socket=s,max-queue-size=65535")->max_queue_size, 32768u);
  EXPECT_EQ(parse_vhost_user("rng,socket=s,max-queue-size=1")->max_queue_size, 1u);
  for (const char* size : {"0", "65536", "18446744073709551615"}) {
    EXPECT_THAT(
        error_of(std::string("rng,socket=s,max-queue-size=") + size),
        HasSubstr(std::string("max-queue-size=") + size + ": give a number from 1 to 65535"));
  }
}

TEST(VhostUserOptionsTest, RefusesWhatCannotBe) {
  EXPECT_THAT(error_of("block"), HasSubstr("socket"));
  EXPECT_THAT(error_of("disk,socket=s"), HasSubstr("`block`"));
  EXPECT_THAT(error_of("block,socket=s,pci-address=00:40.0"), HasSubstr("pci-address"));
  EXPECT_THAT(error_of("block,socket=s,queues=2"), HasSubstr("queues"));
}

TEST(VhostUserOptionsTest, DevicesKeepTheirOrderWhateverFlagTheyCameBy) {
  auto config = config_of({"--vhost-user", "rng,socket=a", "--vhost-user-blk", "b",
                           "--vhost-user-fs", "c:tag", "--vhost-user-connect-timeout-ms", "250"});
  ASSERT_TRUE(config) << config.error().what();
  ASSERT_EQ(config->vhost_user.size(), 3u);
  EXPECT_EQ(config->vhost_user[0].type, "rng");
  EXPECT_EQ(config->vhost_user[1].type, "block");
  EXPECT_EQ(config->vhost_user[1].socket, "b");
  EXPECT_EQ(config->vhost_user[2].type, "fs");
  EXPECT_EQ(config->vhost_user[2].socket, "c") << "the tag is the back-end's to say";
  EXPECT_EQ(config->vhost_user_connect_timeout, std::chrono::milliseconds(250));
}

TEST(VhostUserOptionsTest, OldFlagsNameTheTypeTheyStandFor) {
  const std::pair<std::string_view, std::string_view> kFlags[] = {
      {"--vhost-user-net", "net"},
      {"--vhost-user-console", "console"},
      {"--vhost-user-gpu", "gpu"},
      {"--vhost-user-snd", "sound"},
      {"--vhost-user-vsock", "vsock"},
      {"--vhost-user-wl", "wl"},
      {"--vhost-user-mac80211-hwsim", "mac80211-hwsim"},
  };
  for (auto [flag, type] : kFlags) {
    auto config = config_of({flag, "/s"});
    ASSERT_TRUE(config) << flag << ": " << config.error().what();
    ASSERT_EQ(config->vhost_user.size(), 1u) << flag;
    EXPECT_EQ(config->vhost_user[0].type, type);
    EXPECT_EQ(config->vhost_user[0].socket, "/s");
  }
  EXPECT_FALSE(config_of({"--vhost-user-blk", ""}));
  EXPECT_FALSE(config_of({"--vhost-user-fs", ":tag"}));
}

TEST(VhostUserOptionsTest, AConsoleOfABackEndIsTheConsole) {
  auto config = config_of({"--vhost-user", "console,socket=s"});
  ASSERT_TRUE(config);
  for (const SerialConfig& port : config->serial) {
    EXPECT_EQ(port.type, SerialConfig::Type::kSink) << int{port.num};
    EXPECT_FALSE(port.console) << int{port.num};
  }
}

TEST(VhostUserOptionsTest, TheTimeoutIsANumberOfMilliseconds) {
  EXPECT_FALSE(config_of({"--vhost-user-connect-timeout-ms", "soon"}));
  EXPECT_FALSE(config_of({"--vhost-user-connect-timeout-ms", "-1"}));
  // More than the clock counts: forever.
  auto config = config_of({"--vhost-user-connect-timeout-ms", "18446744073709551615"});
  ASSERT_TRUE(config);
  EXPECT_GT(*config->vhost_user_connect_timeout, std::chrono::hours(1'000'000));
}

}  // namespace
}  // namespace crosvm
