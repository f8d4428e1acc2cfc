#include "cli/vsock_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/command_line.h"
#include "cli/run_command.h"

namespace crosvm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Result<Config> config_of(std::vector<std::string_view> arguments) {
  arguments.insert(arguments.begin(), "run");
  arguments.push_back("/kernel");
  const CommandLine line = TRY(parse_command_line(root_command(), arguments));
  TRY(check_supported(line));
  return make_config(TRY(read_run_options(line)));
}
std::string error_of(const std::vector<std::string_view>& arguments) {
  auto config = config_of(arguments);
  return config ? "no error" : config.error().what();
}

TEST(VsockOptionsTest, AVmHasOneOrNone) {
  EXPECT_EQ(config_of({})->vsock, std::nullopt);
  EXPECT_EQ(config_of({"--vsock", "3"})->vsock->cid, 3u);
  const auto ours = config_of({"--vsock", "cid=4,backend=user,listen=[22:/ssh]"});
  ASSERT_TRUE(ours) << ours.error().what();
  EXPECT_EQ(ours->vsock->listen.at(0).path, "/ssh");
  EXPECT_THAT(error_of({"--vsock", "3", "--vsock", "4"}), HasSubstr("--vsock"));
}

TEST(VsockOptionsTest, TheOldFlags) {
  EXPECT_EQ(config_of({"--cid", "5"})->vsock->device, "/dev/vhost-vsock");
  EXPECT_EQ(config_of({"--cid", "5"})->vsock->cid, 5u);
  EXPECT_EQ(config_of({"--cid", "5", "--vhost-vsock-device", "/dev/v"})->vsock->device, "/dev/v");
  EXPECT_EQ(config_of({"--vhost-vsock-fd", "9", "--cid", "5"})->vsock->device, "/proc/self/fd/9");
}

TEST(VsockOptionsTest, FlagsThatDisagree) {
  EXPECT_THAT(error_of({"--vsock", "3", "--cid", "3"}), HasSubstr("--vsock and --cid"));
  EXPECT_THAT(error_of({"--cid", "3", "--vhost-vsock-device", "d", "--vhost-vsock-fd", "4"}),
              HasSubstr("cannot both be given"));
  EXPECT_THAT(error_of({"--vhost-vsock-device", "d"}),
              AllOf(HasSubstr("--vhost-vsock-device"), HasSubstr("--cid")));
  EXPECT_THAT(error_of({"--vsock", "3", "--vhost-vsock-fd", "4"}), HasSubstr("--vhost-vsock-fd"));
  EXPECT_THAT(error_of({"--cid", "2"}), AllOf(HasSubstr("--cid"), HasSubstr("the host's")));
  EXPECT_THAT(error_of({"--cid", "three"}), HasSubstr("not a decimal number"));
  EXPECT_THAT(error_of({"--cid", "3", "--vhost-vsock-fd", "-1"}),
              HasSubstr("not a decimal number"));
}

}  // namespace
}  // namespace crosvm
