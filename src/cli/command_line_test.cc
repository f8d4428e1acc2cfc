#include "cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace crosvm {
namespace {

using ::testing::HasSubstr;

// A table of its own, so that the rules are tested whatever `run` can do.
constexpr Option kTestOptions[] = {
    Option("cpus", ValueKind::kKeyValues, "").letter('c').built(),
    Option("params", ValueKind::kString, "").letter('p').many().built(),
    Option("no-rtc", ValueKind::kSwitch, "").letter('n').built(),
    Option("gpu", ValueKind::kKeyValues, "").many().value_optional().built(),
    Option("block", ValueKind::kKeyValues, "").many(),
    Option("log-file", ValueKind::kPath, "").only("Windows"),
    Option("plugin*", ValueKind::kPath, "").removed(""),
    Option("dmi", ValueKind::kPath, "").removed("--smbios"),
    Option("host-ip", ValueKind::kOther, "").built(),
    Option("balloon-bias-mib", ValueKind::kNumber, "").built(),
};
constexpr OptionGroup kTestGroups[] = {{"Options", kTestOptions}};
constexpr Positional kKernel[] = {{.name = "KERNEL", .help = "", .required = false}};
constexpr Option kModeOptions[] = {Option("mode", ValueKind::kString, "").require().built()};
constexpr OptionGroup kModeGroups[] = {{"Options", kModeOptions}};
constexpr Positional kSocket[] = {{"VM_SOCKET", ""}};
constexpr Command kGpu[] = {{.name = "set",
                             .help = "",
                             .positionals = kSocket,
                             .groups = kModeGroups,
                             .support = Support::kBuilt},
                            {.name = "list", .help = "", .positionals = kSocket}};
constexpr Positional kFiles[] = {{"PATH", ""}, {.name = "PART", .help = "", .repeatable = true}};
constexpr Command kCommands[] = {
    {.name = "run",
     .help = "",
     .positionals = kKernel,
     .groups = kTestGroups,
     .support = Support::kBuilt},
    {.name = "gpu", .help = "", .subcommands = kGpu, .support = Support::kBuilt},
    {.name = "join", .help = "", .positionals = kFiles, .support = Support::kBuilt}};
constexpr Option kGlobal[] = {Option("quiet", ValueKind::kSwitch, "").built(),
                              Option("tag", ValueKind::kString, "").built()};
constexpr OptionGroup kGlobalGroups[] = {{"Options", kGlobal}};
constexpr Command kRoot = {.name = "crosvm",
                           .help = "",
                           .groups = kGlobalGroups,
                           .subcommands = kCommands,
                           .support = Support::kBuilt};

Result<CommandLine> parse(std::vector<std::string_view> arguments) {
  return parse_command_line(kRoot, arguments);
}

std::string error_of(std::vector<std::string_view> arguments) {
  auto line = parse(std::move(arguments));
  return line ? "no error" : line.error().what();
}

/// "--cpus=2 --no-rtc= KERNEL": what was understood.
std::string seen(std::vector<std::string_view> arguments) {
  auto line = parse(std::move(arguments));
  if (!line) return "error: " + line.error().what();
  std::ostringstream text;
  for (const GivenOption& given : line->options()) {
    text << "--" << given.option->name << "=" << given.value << " ";
  }
  for (std::string_view positional : line->positionals) text << positional << " ";
  if (line->help) text << "help " << line->command_name();
  return text.str();
}

// The pre-pass, 1.1.1.

TEST(CommandLineTest, SplitsDashTokensAtTheFirstEquals) {
  EXPECT_EQ(seen({"run", "--params=b=c"}), "--params=b=c ");
  EXPECT_EQ(seen({"run", "-p=init=/x"}), "--params=init=/x ");
  EXPECT_EQ(seen({"run", "--params="}), "--params= ");
  EXPECT_EQ(seen({"run", "a=b"}), "a=b ");
}

TEST(CommandLineTest, SplitsValuesThatLookLikeOptions) {
  EXPECT_EQ(seen({"run", "-p", "-foo=bar"}), "--params=-foo bar ");
  EXPECT_EQ(seen({"run", "--", "--a=b"}), "error: Unrecognized argument: b");
}

TEST(CommandLineTest, ShortHelpIsHelp) { EXPECT_EQ(seen({"run", "-h"}), "help run"); }

TEST(CommandLineTest, AcceptsUnderscoresOfOldReleases) {
  EXPECT_EQ(seen({"run", "--host_ip", "1.2.3.4"}), "--host-ip=1.2.3.4 ");
  EXPECT_EQ(seen({"run", "--host_ip=1.2.3.4"}), "--host-ip=1.2.3.4 ");
  EXPECT_EQ(seen({"run", "--balloon_bias_mib", "5"}), "--balloon-bias-mib=5 ");
  EXPECT_EQ(error_of({"run", "--no_rtc"}), "Unrecognized argument: --no_rtc");
}

// The parser, 1.1.2.

TEST(CommandLineTest, NamesMatchExactly) {
  EXPECT_EQ(error_of({"run", "--cpu", "1"}), "Unrecognized argument: --cpu");
  EXPECT_EQ(error_of({"run", "--foo=1"}), "Unrecognized argument: --foo");
  EXPECT_EQ(error_of({"run", "-x"}), "Unrecognized argument: -x");
  EXPECT_EQ(error_of({"run", "-nc"}), "Unrecognized argument: -nc");
  EXPECT_EQ(error_of({"--cpus", "1", "run"}), "Unrecognized argument: --cpus");
}

TEST(CommandLineTest, ShortOptionsTakeTheNextTokenOrAnAttachedValue) {
  EXPECT_EQ(seen({"run", "-c", "4"}), "--cpus=4 ");
  EXPECT_EQ(seen({"run", "-c=4"}), "--cpus=4 ");
  EXPECT_EQ(seen({"run", "-c4"}), "--cpus=4 ");
  EXPECT_EQ(seen({"run", "-pinit=/bin/sh", "bzImage"}), "--params=init=/bin/sh bzImage ");
}

TEST(CommandLineTest, ValuesAreTakenWhateverTheyLookLike) {
  EXPECT_EQ(seen({"run", "-p", "--no-rtc"}), "--params=--no-rtc ");
  EXPECT_EQ(seen({"run", "-p", "help"}), "--params=help ");
  EXPECT_EQ(seen({"run", "-p", ""}), "--params= ");
  EXPECT_EQ(error_of({"run", "--cpus"}), "No value provided for option '--cpus'.");
  EXPECT_EQ(error_of({"run", "-c"}), "No value provided for option '-c'.");
}

TEST(CommandLineTest, DoubleDashEndsOptions) {
  EXPECT_EQ(seen({"run", "--", "-c"}), "-c ");
  EXPECT_EQ(seen({"run", "--", "help"}), "help ");
}

TEST(CommandLineTest, OptionsAndPositionalsInterleave) {
  EXPECT_EQ(seen({"run", "bzImage", "-c", "2", "--no-rtc"}), "--cpus=2 --no-rtc= bzImage ");
  EXPECT_EQ(error_of({"run", "bzImage", "-c", "2", "more"}), "Unrecognized argument: more");
}

TEST(CommandLineTest, LoneDashIsUnknown) {
  EXPECT_EQ(error_of({"run", "-"}), "Unrecognized argument: -");
}

TEST(CommandLineTest, HelpIsForTheCommandReached) {
  EXPECT_EQ(seen({"help"}), "help ");
  EXPECT_EQ(seen({"--help"}), "help ");
  EXPECT_EQ(seen({"help", "run"}), "help run");
  EXPECT_EQ(seen({"help", "gpu", "set"}), "help gpu set");
  EXPECT_EQ(seen({"run", "help", "bzImage"}), "bzImage help run");
  EXPECT_THAT(error_of({"run", "help", "-c"}), HasSubstr("Unrecognized argument: -c"));
  EXPECT_EQ(error_of({"run", "--foo", "--help"}), "Unrecognized argument: --foo");
}

TEST(CommandLineTest, GlobalOptionsStandBeforeTheSubcommand) {
  auto line = parse({"--quiet", "--tag", "vm1", "run", "-c", "1"});
  ASSERT_TRUE(line);
  ASSERT_EQ(line->global_options().size(), 2u);
  EXPECT_EQ(line->global_options()[1].value, "vm1");
  EXPECT_EQ(line->options().size(), 1u);
  EXPECT_EQ(error_of({"run", "--quiet"}), "Unrecognized argument: --quiet");
}

TEST(CommandLineTest, RepeatedScalarsAreRefusedSwitchesAreNot) {
  EXPECT_EQ(error_of({"run", "-c", "1", "--cpus", "2"}),
            "Error parsing option '--cpus' with value '2': duplicate values provided");
  EXPECT_EQ(seen({"run", "-p", "a", "-p", "b"}), "--params=a --params=b ");
  EXPECT_EQ(seen({"run", "--no-rtc", "--no-rtc"}), "--no-rtc= --no-rtc= ");
}

TEST(CommandLineTest, WhatIsMissingIsListed) {
  EXPECT_EQ(error_of({}), "One of the following subcommands must be present: help, run, gpu, join");
  EXPECT_EQ(error_of({"gpu"}), "One of the following subcommands must be present: help, set, list");
  EXPECT_EQ(error_of({"gpu", "list"}), "Required positional arguments not provided: VM_SOCKET");
  EXPECT_EQ(error_of({"join", "a"}), "Required positional arguments not provided: PART");
  EXPECT_EQ(error_of({"gpu", "set", "vm.sock"}), "Required options not provided: --mode");
  EXPECT_EQ(error_of({"fly"}), "Unrecognized argument: fly");
  EXPECT_EQ(seen({"join", "a", "b", "c", "d"}), "a b c d ");
}

TEST(CommandLineTest, ASwitchTakesNoValue) {
  EXPECT_EQ(
      error_of({"run", "--no-rtc=true", "bzImage"}),
      "Option '--no-rtc' takes no value, but 'true' was given; write --no-rtc alone, or leave "
      "it out");
  EXPECT_EQ(seen({"run", "--no-rtc", "bzImage"}), "--no-rtc= bzImage ");
}

// Values that may be missing, 2.2.

TEST(CommandLineTest, OptionalValuesAreLeftOutBeforeOptionsAndTheKernel) {
  EXPECT_EQ(seen({"run", "--gpu", "-c", "1", "bzImage"}), "--gpu= --cpus=1 bzImage ");
  EXPECT_EQ(seen({"run", "--gpu", "bzImage"}), "--gpu= bzImage ");
  EXPECT_EQ(seen({"run", "bzImage", "--gpu"}), "--gpu= bzImage ");
  EXPECT_EQ(seen({"run", "--gpu", "backend=2d", "bzImage"}), "--gpu=backend=2d bzImage ");
  EXPECT_EQ(seen({"run", "bzImage", "--gpu", "2d"}), "--gpu=2d bzImage ");
  EXPECT_EQ(seen({"run", "--gpu=2d"}), "--gpu=2d ");
  EXPECT_EQ(seen({"run", "--gpu=", "bzImage"}), "--gpu= bzImage ");
}

// What this build does not do.

std::string refusal_of(std::vector<std::string_view> arguments) {
  auto line = parse(std::move(arguments));
  if (!line) return line.error().what();
  auto supported = check_supported(*line);
  return supported ? "supported" : supported.error().what();
}

TEST(CommandLineTest, UnbuiltOptionsAndCommandsAreRefusedByName) {
  EXPECT_EQ(refusal_of({"run", "--block", "a.img"}), "--block is not supported by this build yet");
  EXPECT_EQ(refusal_of({"run", "--log-file", "x"}), "--log-file is for Windows only");
  EXPECT_EQ(refusal_of({"run", "--plugin-mount", "x"}),
            "--plugin-mount no longer exists and nothing replaces it");
  EXPECT_EQ(refusal_of({"run", "--dmi"}), "--dmi no longer exists; use --smbios");
  EXPECT_EQ(refusal_of({"gpu", "list", "s"}),
            "`crosvm gpu list` is not supported by this build yet");
  EXPECT_EQ(refusal_of({"run", "--no-rtc"}), "supported");
}

}  // namespace
}  // namespace crosvm
