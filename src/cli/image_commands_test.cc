#include "cli/image_commands.h"

#include <gmock/gmock.h>

#include <vector>

#include "cli/disk_program.h"

namespace crosvm {
namespace {

using testing::HasSubstr;

CommandLine parsed(const std::vector<std::string_view>& arguments) {
  auto line = parse_command_line(root_command(), arguments);
  EXPECT_TRUE(line) << line.error().what();
  return line.value_or(CommandLine());
}

std::string refusal(const std::vector<std::string_view>& arguments) {
  const CommandLine line = parsed(arguments);
  EXPECT_TRUE(check_supported(line));
  const auto command = read_image_command(line);
  return command ? "" : command.error().what();
}

TEST(ImageCommandsTest, KnowsItsCommands) {
  for (const std::vector<std::string_view>& arguments :
       {std::vector<std::string_view>{"create_composite", "a", "b:c"},
        {"create_qcow2", "a", "1"},
        {"create_qcow2", "a", "--backing_file", "b"},
        {"create_qcow2", "a", "--backing-file", "b", "--backing-format", "raw"},
        {"disk", "info", "a", "--json"},
        {"disk", "check", "--repair", "a"},
        {"disk", "convert", "a", "b.qcow2", "--compress", "--allow-backing", "c", "--allow-backing",
         "d"},
        {"disk", "compact", "a"}}) {
    const CommandLine line = parsed(arguments);
    EXPECT_TRUE(check_supported(line)) << arguments[0];
    EXPECT_TRUE(is_disk_tool(line)) << arguments[0];
    const auto command = read_image_command(line);
    ASSERT_TRUE(command) << command.error().what();
    EXPECT_TRUE(*command) << arguments[1];
  }
  EXPECT_FALSE(is_disk_tool(parsed({"version"})));
  EXPECT_FALSE(is_disk_tool(parsed({"disk", "resize", "0", "4096", "vm.sock"})));
}

TEST(ImageCommandsTest, RefusesValues) {
  EXPECT_THAT(refusal({"create_qcow2", "a", "1G"}), HasSubstr("'SIZE' with value '1G'"));
  EXPECT_THAT(refusal({"create_qcow2", "a", "+512"}), HasSubstr("'SIZE' with value '+512'"));
  EXPECT_THAT(refusal({"create_qcow2", "a", "18446744073709551616"}), HasSubstr("'SIZE'"));
  EXPECT_THAT(refusal({"create_qcow2", "a", "1", "--backing-format", "raw"}),
              HasSubstr("give --backing-file"));
  EXPECT_THAT(refusal({"create_qcow2", "a", "--backing-file", "b", "--backing-format", "vdi"}),
              HasSubstr("expected one of raw, qcow2"));
  EXPECT_THAT(refusal({"disk", "convert", "a", "b", "--format", "composite"}),
              HasSubstr("expected one of raw, qcow2, zstd, android-sparse"));
  EXPECT_THAT(refusal({"disk", "convert", "a", "b", "--source-format", "vdi"}),
              HasSubstr("--source-format"));
  EXPECT_THAT(refusal({"disk", "convert", "a", "b", "--compression-type", "lz4"}),
              HasSubstr("zlib, zstd"));
  EXPECT_THAT(refusal({"disk", "convert", "a", "b", "--cluster-size", "x"}),
              HasSubstr("--cluster-size"));
  EXPECT_THAT(refusal({"disk", "convert", "a", "b"}), HasSubstr("give --format"));
  EXPECT_THAT(refusal({"disk", "convert", "a", "b.img", "--compress"}), HasSubstr("for raw"));
  EXPECT_THAT(refusal({"disk", "convert", "a", "b.qcow2", "--cluster-size", "1000"}),
              HasSubstr("power of two"));
}

}  // namespace
}  // namespace crosvm
