#include "jail/seccomp_compile.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <seccomp.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <vector>

#include "base/format.h"
#include "jail/bpf_simulation.h"

namespace crosvm {
namespace {

using Operator = ArgumentTest::Operator;
using testing::AllOf;
using testing::HasSubstr;

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr uint32_t kDenied = kSeccompDefaultMark;

/// What a call may say that it is.
constexpr uint32_t kOthers[] = {AUDIT_ARCH_I386,    AUDIT_ARCH_ARM,     AUDIT_ARCH_X86_64,
                                AUDIT_ARCH_AARCH64, AUDIT_ARCH_RISCV64, AUDIT_ARCH_RISCV32};

struct Machine {
  PolicyArch arch;
  uint32_t audit;
  uint32_t library;
};
constexpr Machine kMachines[] = {
    {PolicyArch::kX86_64, AUDIT_ARCH_X86_64, SCMP_ARCH_X86_64},
    {PolicyArch::kAarch64, AUDIT_ARCH_AARCH64, SCMP_ARCH_AARCH64},
    {PolicyArch::kRiscv64, AUDIT_ARCH_RISCV64, SCMP_ARCH_RISCV64},
};

Result<SeccompPolicy> parse(const std::string& text, PolicyArch arch) {
  return parse_seccomp_policy("test.policy", arch,
                              [&](const std::string&) -> Result<std::string> { return text; });
}

/// A policy, compiled and simulated.
class Compiled {
 public:
  explicit Compiled(const std::string& text, const Machine& machine = kMachines[0])
      : machine_(machine) {
    auto policy = parse(text, machine.arch);
    EXPECT_TRUE(policy) << policy.error().what();
    if (policy) compile(*policy);
  }
  Compiled(const SeccompPolicy& policy, const Machine& machine) : machine_(machine) {
    compile(policy);
  }

  uint32_t operator()(const char* call, std::vector<uint64_t> arguments = {}) const {
    return number(seccomp_syscall_resolve_name_arch(machine_.library, call), arguments);
  }
  uint32_t number(int nr, const std::vector<uint64_t>& arguments = {}, uint32_t audit = 0) const {
    seccomp_data data = {};
    data.nr = nr;
    data.arch = audit != 0 ? audit : machine_.audit;
    std::ranges::copy(arguments, data.args);
    return simulate_bpf(program_, data);
  }

 private:
  void compile(const SeccompPolicy& policy) {
    auto program = compile_seccomp_policy(policy, machine_.arch);
    EXPECT_TRUE(program) << program.error().what();
    if (program) program_ = *std::move(program);
  }

  const Machine machine_;
  std::vector<sock_filter> program_;
};

std::string error(const std::string& text) {
  auto policy = parse(text, PolicyArch::kX86_64);
  EXPECT_TRUE(policy) << policy.error().what();
  auto program = compile_seccomp_policy(*policy, PolicyArch::kX86_64);
  EXPECT_FALSE(program);
  return program ? "" : program.error().what();
}

TEST(SeccompCompileTest, WhatIsNotListedIsDenied) {
  for (const Machine& machine : kMachines) {
    Compiled filter("read: 1\nopenat: return ENOENT\nwrite: arg0 == 1", machine);
    EXPECT_EQ(filter("read"), kAllow);
    EXPECT_EQ(filter("openat"), SECCOMP_RET_ERRNO | ENOENT);
    EXPECT_EQ(filter("write", {1}), kAllow);
    EXPECT_EQ(filter("write", {2}), kDenied);
    EXPECT_EQ(filter("close"), kDenied);
    EXPECT_EQ(filter.number(1000), kDenied);
  }
}

TEST(SeccompCompileTest, CallsOfOtherArchitecturesKill) {
  for (const Machine& machine : kMachines) {
    Compiled filter("read: 1", machine);
    for (uint32_t audit : kOthers) {
      if (audit == machine.audit) continue;
      for (int nr = 0; nr < 500; ++nr) {
        ASSERT_EQ(filter.number(nr, {}, audit), SECCOMP_RET_KILL_PROCESS) << nr;
      }
    }
  }
}

TEST(SeccompCompileTest, X32CallsKill) {
  Compiled filter("read: 1\nwrite: arg0 == 1");
  for (int nr = 0; nr < 600; ++nr) {
    ASSERT_EQ(filter.number(0x40000000 | nr, {1}), SECCOMP_RET_KILL_PROCESS);
  }
}

TEST(SeccompCompileTest, AnEmptyPolicyDeniesAll) {
  Compiled filter("# nothing\n");
  EXPECT_EQ(filter("exit_group"), kDenied);
  EXPECT_EQ(filter.number(0x40000001), SECCOMP_RET_KILL_PROCESS);
}

TEST(SeccompCompileTest, AllBitsOfTheRegisterCount) {
  Compiled filter("ioctl: arg1 == 0xc0045877\nfcntl: arg1 == -1\nmmap: arg2 in ~PROT_EXEC");
  EXPECT_EQ(filter("ioctl", {0, 0xc0045877}), kAllow);
  EXPECT_EQ(filter("ioctl", {0, 0xffffffffc0045877}), kDenied);  // an int, its sign extended
  EXPECT_EQ(filter("ioctl", {0, 0x1c0045877}), kDenied);
  EXPECT_EQ(filter("fcntl", {0, UINT64_MAX}), kAllow);
  EXPECT_EQ(filter("fcntl", {0, 0xffffffff}), kDenied);
  EXPECT_EQ(filter("mmap", {0, 0, 3}), kAllow);
  EXPECT_EQ(filter("mmap", {0, 0, 7}), kDenied);
  EXPECT_EQ(filter("mmap", {0, 0, 0x100000004}), kDenied);
}

TEST(SeccompCompileTest, EachOperatorAtItsEdges) {
  const uint64_t big = uint64_t{1} << 40;
  Compiled less("read: arg0 < 0x10000000000");
  EXPECT_EQ(less("read", {big - 1}), kAllow);
  EXPECT_EQ(less("read", {big}), kDenied);
  Compiled at_most("read: arg0 <= 0x10000000000");
  EXPECT_EQ(at_most("read", {big}), kAllow);
  EXPECT_EQ(at_most("read", {big + 1}), kDenied);
  Compiled more("read: arg0 > 0x10000000000");
  EXPECT_EQ(more("read", {big + 1}), kAllow);
  EXPECT_EQ(more("read", {big}), kDenied);
  Compiled at_least("read: arg0 >= 0x10000000000");
  EXPECT_EQ(at_least("read", {big}), kAllow);
  EXPECT_EQ(at_least("read", {big - 1}), kDenied);
  Compiled other("read: arg0 != 0x10000000000");
  EXPECT_EQ(other("read", {0}), kAllow);
  EXPECT_EQ(other("read", {big}), kDenied);
  Compiled bits("read: arg0 & 0x8000000000000006");
  EXPECT_EQ(bits("read", {uint64_t{1} << 63}), kAllow);
  EXPECT_EQ(bits("read", {2}), kAllow);
  EXPECT_EQ(bits("read", {~uint64_t{0x8000000000000006}}), kDenied);
  Compiled never("read: arg0 & 0 || arg1 < 0");
  EXPECT_EQ(never("read", {0, 0}), kDenied);
  Compiled always("read: arg0 in ~0");
  EXPECT_EQ(always("read", {UINT64_MAX}), kAllow);
}

TEST(SeccompCompileTest, TestsOfOneArgumentAreJoined) {
  Compiled filter("read: arg0 >= 10 && arg0 <= 1000 && arg0 != 77 && arg0 & 1");
  for (uint64_t value = 0; value < 1100; ++value) {
    bool allowed = value >= 10 && value <= 1000 && value != 77 && (value & 1) != 0;
    ASSERT_EQ(filter("read", {value}), allowed ? kAllow : kDenied) << value;
  }
  EXPECT_EQ(filter("read", {(uint64_t{1} << 32) + 11}), kDenied);
}

TEST(SeccompCompileTest, WhatNoTestAllowsReturnsTheError) {
  Compiled filter("ioctl: arg1 == FIONBIO || arg1 == TCGETS\nioctl: return ENOTTY");
  EXPECT_EQ(filter("ioctl", {0, 0x5421}), kAllow);
  EXPECT_EQ(filter("ioctl", {0, 0x5401}), kAllow);
  EXPECT_EQ(filter("ioctl", {0, 0x5412}), SECCOMP_RET_ERRNO | ENOTTY);
}

TEST(SeccompCompileTest, LongJumpsReachTheirEnds) {
  std::string text;  // each call has more instructions than a conditional jump can pass
  for (const char* call : {"read", "write", "mmap", "ioctl", "fcntl"}) {
    for (int i = 0; i < 60; ++i) text += format_text("{}: arg0 == {}\n", call, i);
  }
  Compiled filter(text);
  for (const char* call : {"read", "write", "mmap", "ioctl", "fcntl"}) {
    EXPECT_EQ(filter(call, {0}), kAllow);
    EXPECT_EQ(filter(call, {59}), kAllow);
    EXPECT_EQ(filter(call, {60}), kDenied);
  }
  EXPECT_EQ(filter("close"), kDenied);
}

TEST(SeccompCompileTest, AnUnconditionalAlternativeWins) {
  Compiled filter("read: arg0 == 1\nread: 1\nread: arg0 == 2\nopen: return EPERM\n");
  EXPECT_EQ(filter("read", {7}), kAllow);
}

TEST(SeccompCompileTest, MistakesAreNamedWithFileAndLine) {
  EXPECT_THAT(error("read: 1\nno_such_call: 1"),
              AllOf(HasSubstr("test.policy:2"), HasSubstr("'no_such_call' does not exist on x86")));
  auto only_elsewhere = parse("open: 1", PolicyArch::kAarch64);
  ASSERT_TRUE(only_elsewhere);
  auto program = compile_seccomp_policy(*only_elsewhere, PolicyArch::kAarch64);
  ASSERT_FALSE(program);
  EXPECT_THAT(program.error().what(), HasSubstr("'open' does not exist on aarch64"));
}

TEST(SeccompCompileTest, WhatIsTooLargeIsAnError) {
  std::string row = "read: arg0 == 0";
  for (int i = 0; i < 50; ++i) row += " && arg1 != 0x123400000000";
  EXPECT_THAT(error(row), HasSubstr("more than 50 tests"));
  std::string lines;
  for (int i = 0; i < 3000; ++i) lines += format_text("read: arg0 == {} && arg1 == {}\n", i, i);
  EXPECT_THAT(error(lines), HasSubstr("the kernel takes"));
}

// Against what the tests say ------------------------------------------------------------------

bool holds(const ArgumentTest& test, uint64_t argument) {
  switch (test.op) {
    case Operator::kEqual:
      return argument == test.value;
    case Operator::kNotEqual:
      return argument != test.value;
    case Operator::kLess:
      return argument < test.value;
    case Operator::kLessOrEqual:
      return argument <= test.value;
    case Operator::kGreater:
      return argument > test.value;
    case Operator::kGreaterOrEqual:
      return argument >= test.value;
    case Operator::kAnyBit:
      return (argument & test.value) != 0;
    case Operator::kOnlyBits:
      return (argument & ~test.value) == 0;
  }
  return false;
}

bool holds(const PolicyRule& rule, const std::vector<uint64_t>& arguments) {
  return std::ranges::any_of(rule.allowed, [&](const Conjunction& tests) {
    return std::ranges::all_of(
        tests, [&](const ArgumentTest& test) { return holds(test, arguments[test.argument]); });
  });
}

class Dice {
 public:
  explicit Dice(uint32_t seed) : engine_(seed) {}
  uint64_t below(uint64_t end) { return engine_() % end; }
  /// Near values that matter: few, so that tests meet arguments.
  uint64_t value() {
    constexpr uint64_t kEdges[] = {0,
                                   1,
                                   3,
                                   7,
                                   0x7fffffff,
                                   0x80000000,
                                   0xffffffff,
                                   0x100000000,
                                   0x1ffffffff,
                                   0x123456789abcdef0,
                                   0xffffffff80000000};
    uint64_t edge = kEdges[below(std::size(kEdges))];
    return below(3) == 0 ? edge + below(3) - 1 : edge;
  }

 private:
  std::mt19937_64 engine_;
};

PolicyRule random_rule(Dice& dice, const char* call) {
  PolicyRule rule{.call = call, .allowed = {}, .error = {}, .where = call};
  if (dice.below(4) == 0) {
    rule.allowed.emplace_back();  // whatever its arguments
    return rule;
  }
  const size_t alternatives = 1 + dice.below(4);
  const bool choices = dice.below(2) == 0;  // one argument, many values
  for (size_t i = 0; i < alternatives; ++i) {
    Conjunction tests;
    if (choices && dice.below(5) != 0) {
      rule.allowed.push_back({{0, ArgumentTest::Operator::kEqual, dice.value()}});
      continue;
    }
    uint64_t used = 0;
    size_t count = 1 + dice.below(3);
    for (size_t j = 0; j < count; ++j) {
      auto argument = static_cast<uint8_t>(dice.below(3));
      if ((used & (1U << argument)) != 0 && dice.below(4) != 0) continue;
      used |= 1U << argument;
      tests.push_back({argument, static_cast<Operator>(dice.below(8)), dice.value()});
    }
    rule.allowed.push_back(std::move(tests));
  }
  return rule;
}

constexpr const char* kCalls[] = {"read",    "write",   "ioctl",  "mmap",  "fcntl", "close",
                                  "futex",   "madvise", "munmap", "ppoll", "dup3",  "openat",
                                  "recvmsg", "sendmsg", "getpid", "lseek", "fsync", "socket",
                                  "pread64", "preadv2", "statx",  "prctl", "brk",   "clone3"};

TEST(SeccompCompileTest, RandomPoliciesDoWhatTheirTestsSay) {
  size_t allowed = 0;
  for (uint32_t seed = 0; seed < 600; ++seed) {
    Dice dice(seed);
    const Machine& machine = kMachines[seed % 3];
    SeccompPolicy policy;
    std::vector<std::string> missing;
    const size_t left_out = dice.below(3) * 8;  // of 24, to have short and long policies
    for (const char* call : kCalls) {
      if (dice.below(24) >= left_out) {
        policy.rules.push_back(random_rule(dice, call));
      } else {
        missing.push_back(call);
      }
    }
    Compiled filter(policy, machine);
    for (const std::string& call : missing) {
      ASSERT_EQ(filter(call.c_str()), kDenied) << "seed " << seed << " " << call;
    }
    for (int i = 0; i < 400; ++i) {
      const PolicyRule& rule = policy.rules[dice.below(policy.rules.size())];
      std::vector<uint64_t> arguments = {dice.value(), dice.value(), dice.value(), 0, 0, 0};
      bool wanted = holds(rule, arguments);
      allowed += wanted ? 1 : 0;
      ASSERT_EQ(filter(rule.call.c_str(), arguments), wanted ? kAllow : kDenied)
          << "seed " << seed << " " << rule.call << " " << arguments[0] << " " << arguments[1]
          << " " << arguments[2];
    }
  }
  EXPECT_GT(allowed, 10'000u);
}

// The project's own ---------------------------------------------------------------------------

TEST(SeccompCompileTest, OwnPoliciesCompileForEachArchitecture) {
  const std::filesystem::path root = CROSVM_SOURCE_DIR "/src/jail/policies";
  std::vector<std::string> first;
  for (const Machine& machine : kMachines) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(root / name_of(machine.arch))) {
      if (!entry.is_regular_file()) continue;
      names.push_back(entry.path().filename());
      auto policy = parse_seccomp_policy(entry.path(), machine.arch);
      ASSERT_TRUE(policy) << policy.error().what();
      Compiled filter(*policy, machine);
      EXPECT_EQ(filter("exit_group"), kAllow) << entry.path();
      // The user network reads /etc/resolv.conf, the one file of its root; for writing nobody
      // opens.
      const bool reads = names.back() == "net_user_device.policy";
      EXPECT_EQ(filter("openat"), reads ? kAllow : kDenied) << entry.path();
      for (const uint64_t flags : {O_WRONLY, O_RDWR, O_CREAT, O_PATH, O_DIRECTORY}) {
        EXPECT_EQ(filter("openat", {0, 4096, flags, 0, 0, 0}), kDenied) << entry.path();
      }
      EXPECT_EQ(filter("execve"), kDenied) << entry.path();
      EXPECT_EQ(filter("io_uring_setup"), kDenied) << entry.path();
      EXPECT_EQ(filter("io_uring_register"), kDenied) << entry.path();
      EXPECT_EQ(filter("mmap", {0, 4096, 7, 0x22, 0, 0}), kDenied) << entry.path();
      EXPECT_EQ(filter("mmap", {0, 4096, 3, 0x22, 0, 0}), kAllow) << entry.path();
    }
    std::ranges::sort(names);
    EXPECT_GE(names.size(), 9u);
    if (first.empty()) first = names;
    EXPECT_EQ(names, first) << "of " << name_of(machine.arch);
  }
}

}  // namespace
}  // namespace crosvm
