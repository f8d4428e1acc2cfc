#include "jail/seccomp_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "jail/seccomp_constants.h"

namespace crosvm {
namespace {

using Operator = ArgumentTest::Operator;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

using Files = std::map<std::string, std::string>;

Result<SeccompPolicy> parse(const Files& files, PolicyArch arch = PolicyArch::kX86_64) {
  return parse_seccomp_policy("/p/a.policy", arch,
                              [&](const std::string& path) -> Result<std::string> {
                                auto found = files.find(path);
                                if (found != files.end()) return found->second;
                                return fail(Error(std::errc::no_such_file_or_directory, path));
                              });
}

Result<SeccompPolicy> parse(const std::string& text, PolicyArch arch = PolicyArch::kX86_64) {
  return parse(Files{{"/p/a.policy", text}}, arch);
}

/// The rule of a policy of one line.
PolicyRule rule(const std::string& text, PolicyArch arch = PolicyArch::kX86_64) {
  auto policy = parse(text, arch);
  EXPECT_TRUE(policy) << policy.error().what();
  if (!policy || policy->rules.size() != 1) return {};
  return policy->rules[0];
}

std::string error(const std::string& text) {
  auto policy = parse(text);
  EXPECT_FALSE(policy) << text;
  return policy ? "" : policy.error().what();
}

/// The value in `call: arg0 == TEXT`.
uint64_t value(const std::string& text, PolicyArch arch = PolicyArch::kX86_64) {
  PolicyRule found = rule("read: arg0 == " + text, arch);
  return found.allowed.empty() || found.allowed[0].empty() ? 0xbad : found.allowed[0][0].value;
}

TEST(SeccompPolicyTest, OneAllowsAlways) {
  PolicyRule found = rule("read: 1");
  EXPECT_EQ(found.call, "read");
  EXPECT_EQ(found.where, "/p/a.policy:1");
  EXPECT_THAT(found.allowed, ElementsAre(IsEmpty()));
  EXPECT_FALSE(found.error);
}

TEST(SeccompPolicyTest, ReturnTakesANameOrANumber) {
  EXPECT_EQ(rule("open: return ENOENT").error, 2);
  EXPECT_EQ(rule("open: return 38").error, 38);
  EXPECT_THAT(rule("open: return 1").allowed, IsEmpty());
}

TEST(SeccompPolicyTest, EachOperator) {
  const std::pair<const char*, Operator> all[] = {
      {"==", Operator::kEqual},  {"!=", Operator::kNotEqual},
      {"<", Operator::kLess},    {"<=", Operator::kLessOrEqual},
      {">", Operator::kGreater}, {">=", Operator::kGreaterOrEqual},
      {"&", Operator::kAnyBit},  {"in", Operator::kOnlyBits}};
  for (auto [text, op] : all) {
    PolicyRule found = rule(std::string("read:arg5 ") + text + " 7");
    ASSERT_THAT(found.allowed, SizeIs(1)) << text;
    EXPECT_EQ(found.allowed[0][0].op, op) << text;
    EXPECT_EQ(found.allowed[0][0].argument, 5) << text;
    EXPECT_EQ(found.allowed[0][0].value, 7u) << text;
  }
}

TEST(SeccompPolicyTest, AndBindsCloserThanOr) {
  PolicyRule found = rule("a: arg0 == 1 && arg1 == 2 || arg2 & 4|8&&arg0 in 1 || arg3 == 5");
  EXPECT_THAT(found.allowed, ElementsAre(SizeIs(2), SizeIs(2), SizeIs(1)));
  EXPECT_EQ(found.allowed[1][0].value, 12u);
}

TEST(SeccompPolicyTest, Values) {
  EXPECT_EQ(value("10"), 10u);
  EXPECT_EQ(value("0x1F"), 0x1fu);
  EXPECT_EQ(value("010"), 8u);
  EXPECT_EQ(value("18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(value("-1"), UINT64_MAX);
  EXPECT_EQ(value("AT_FDCWD"), static_cast<uint64_t>(-100));
  EXPECT_EQ(value("PROT_READ|PROT_WRITE"), 3u);
  EXPECT_EQ(value("~PROT_EXEC"), ~uint64_t{4});
  EXPECT_EQ(value("~(PROT_EXEC | 0x10)"), ~uint64_t{0x14});
  EXPECT_EQ(value("~~1|2"), 3u);
  EXPECT_EQ(value("FIONBIO"), 0x5421u);
  EXPECT_EQ(value("VHOST_SET_OWNER"), 0xaf01u);
}

TEST(SeccompPolicyTest, ConstantsAreThoseOfTheTarget) {
  EXPECT_EQ(value("O_DIRECTORY"), 0200000u);
  EXPECT_EQ(value("O_DIRECTORY", PolicyArch::kRiscv64), 0200000u);
  EXPECT_EQ(value("O_DIRECTORY", PolicyArch::kAarch64), 040000u);
  EXPECT_TRUE(seccomp_constant("MAP_32BIT", PolicyArch::kX86_64));
  EXPECT_FALSE(seccomp_constant("MAP_32BIT", PolicyArch::kRiscv64));
}

TEST(SeccompPolicyTest, CommentsBlankLinesAndContinuations) {
  auto policy = parse(
      "# only a comment\n\n  read : 1 # trailing\r\nwrite: arg0 == 1 || \\  # why\n"
      "  arg0 == \\\n 2\nclose: 1\\");
  ASSERT_TRUE(policy) << policy.error().what();
  ASSERT_THAT(policy->rules, SizeIs(3));
  EXPECT_EQ(policy->rules[1].where, "/p/a.policy:4");
  EXPECT_THAT(policy->rules[1].allowed, SizeIs(2));
  EXPECT_EQ(policy->rules[2].call, "close");
  EXPECT_EQ(policy->rules[2].where, "/p/a.policy:7");
}

TEST(SeccompPolicyTest, RepeatsAddAlternatives) {
  PolicyRule found = rule("ioctl: arg1 == 1\nioctl: arg1 == 2 || arg1 == 3\n");
  EXPECT_THAT(found.allowed, SizeIs(3));
  EXPECT_EQ(found.where, "/p/a.policy:1");
}

TEST(SeccompPolicyTest, IncludedFilesAddTheirs) {
  auto policy = parse(Files{{"/p/a.policy",
                             "@include /usr/share/policy/crosvm/b.policy\n@include sub/c.policy\n"
                             "@include /abs/d.policy\nread: arg0 == 1"},
                            {"/p/b.policy", "read: arg0 == 2"},
                            {"/p/sub/c.policy", "write: 1"},
                            {"/abs/d.policy", "close: 1"}});
  ASSERT_TRUE(policy) << policy.error().what();
  ASSERT_THAT(policy->rules, SizeIs(3));
  EXPECT_THAT(policy->rules[0].allowed, SizeIs(2));
  EXPECT_EQ(policy->rules[0].where, "/p/b.policy:1");
}

TEST(SeccompPolicyTest, AnIncludedFileIncludesNothing) {
  auto policy = parse(Files{{"/p/a.policy", "@include b"}, {"/p/b", "read: 1\n@include a.policy"}});
  ASSERT_FALSE(policy);
  EXPECT_THAT(policy.error().what(),
              AllOf(HasSubstr("/p/a.policy:1"), HasSubstr("/p/b:2"), HasSubstr("includes")));
}

TEST(SeccompPolicyTest, AMissingIncludeIsNamedWithItsLine) {
  auto policy = parse("\n@include gone.policy");
  ASSERT_FALSE(policy);
  EXPECT_EQ(policy.error().code(), std::errc::no_such_file_or_directory);
  EXPECT_THAT(policy.error().what(), AllOf(HasSubstr("a.policy:2"), HasSubstr("gone.policy")));
}

TEST(SeccompPolicyTest, OtherDirectives) {
  EXPECT_TRUE(parse("@frequency ./common.frequency\n@default kill-process\n"));
  EXPECT_THAT(error("@default allow"), HasSubstr("leave the line out"));
  EXPECT_THAT(error("@frequency"), HasSubstr("no directive"));
  EXPECT_THAT(error("@denylist"), HasSubstr("no directive"));
  EXPECT_THAT(error("@include"), HasSubstr("needs the path"));
}

TEST(SeccompPolicyTest, MistakesAreNamedWithFileAndLine) {
  const std::pair<const char*, const char*> all[] = {
      {"read", "'read' is no rule"},
      {"re ad: 1", "is no rule"},
      {": 1", "is no rule"},
      {"read:", "the end of the line is no argument"},
      {"read: 2", "'2' is no argument"},
      {"read: arg6 == 1", "'arg6' is no argument"},
      {"read: arg0 = 1", "'=' is no operator"},
      {"read: arg0 ==", "the end of the line where a value"},
      {"read: arg0 == NO_SUCH", "constant 'NO_SUCH' is unknown on x86_64"},
      {"read: arg0 == 0x1g", "'0x1g' is no number"},
      {"read: arg0 == 99999999999999999999", "at most 64 bits"},
      {"read: arg0 == 0x", "'0x' is no number"},
      {"read: arg0 == (1", "where ')' should be"},
      {"read: arg0 == ((((((((((1))))))))))", "too many parentheses"},
      {"read: arg0 == 1 arg1 == 2", "'arg1' is not understood here"},
      {"read: 1 1", "'1' is not understood here"},
      {"read: arg0 == 1; return EPERM", "a line of its own"},
      {"read: return 5000", "no error number"},
      {"read: return", "the end of the line where a value"},
      {"open: return 1\nopen: return 2", "keep one"},
  };
  for (auto [text, part] : all) {
    EXPECT_THAT(error(text), AllOf(HasSubstr("/p/a.policy:"), HasSubstr(part))) << text;
  }
}

TEST(SeccompPolicyTest, AddedPoliciesOnlyAllowMore) {
  auto policy = parse("open: return ENOENT\nread: arg0 == 1\nclone3: return ENOSYS");
  auto more = parse("open: 1\nread: arg0 == 2\nwrite: 1");
  ASSERT_TRUE(policy && more);
  add_to_policy(*policy, *std::move(more));
  ASSERT_THAT(policy->rules, SizeIs(4));
  EXPECT_FALSE(policy->rules[0].error);
  EXPECT_THAT(policy->rules[0].allowed, SizeIs(1));
  EXPECT_THAT(policy->rules[1].allowed, SizeIs(2));
  EXPECT_EQ(policy->rules[2].error, ENOSYS);
}

}  // namespace
}  // namespace crosvm
