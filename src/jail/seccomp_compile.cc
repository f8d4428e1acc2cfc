#include "jail/seccomp_compile.h"

#include <linux/audit.h>
#include <seccomp.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>

#include "base/format.h"
#include "jail/seccomp_rule_code.h"

// The library knows the calls of each architecture by name. The program is ours: the library's
// way of merging alternatives lets calls pass that none of them allows, and takes for ever on some.

namespace crosvm {
namespace {

constexpr uint32_t kX32Bit = 0x40000000;
constexpr size_t kFarthestJump = 255;

struct Target {
  uint32_t library;
  uint32_t audit;
};
Target target_of(PolicyArch arch) {
  switch (arch) {
    case PolicyArch::kX86_64:
      return {SCMP_ARCH_X86_64, AUDIT_ARCH_X86_64};
    case PolicyArch::kAarch64:
      return {SCMP_ARCH_AARCH64, AUDIT_ARCH_AARCH64};
    case PolicyArch::kRiscv64:
      return {SCMP_ARCH_RISCV64, AUDIT_ARCH_RISCV64};
  }
  CHECK(false);
}

struct Call {
  uint32_t number = 0;
  BpfCode code;  // that judges its arguments
};

Result<Call> compile_rule(const PolicyRule& rule, PolicyArch arch) {
  int number = seccomp_syscall_resolve_name_arch(target_of(arch).library, rule.call.c_str());
  if (number < 0) {
    return fail(
        Error::invalid(format_text("the system call '{}' does not exist on {}; leave its line out",
                                   rule.call, name_of(arch))));
  }
  return Call{.number = static_cast<uint32_t>(number),
              .code = TRY(seccomp_rule_code(rule, kSeccompDefaultMark))};
}

void append(BpfCode& code, const BpfCode& more) {
  code.insert(code.end(), more.begin(), more.end());
}

bool always_allows(const Call& call) {
  return call.code.size() == 1 && call.code.front().k == SECCOMP_RET_ALLOW;
}

/// Asks for one call after the other. Those that are always allowed share an answer: the kernel
/// takes its time to translate a filter, and each thread and device process has one.
std::optional<BpfCode> list_code(std::span<const Call> calls) {
  constexpr size_t kMostCalls = 8;
  if (calls.size() > kMostCalls) return std::nullopt;
  BpfCode answers = {BPF_STMT(BPF_RET | BPF_K, kSeccompDefaultMark),
                     BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  BpfCode code;
  for (const Call& call : calls) {
    const size_t place = always_allows(call) ? 1 : answers.size();
    const size_t distance = calls.size() - code.size() - 1 + place;
    if (distance > kFarthestJump) return std::nullopt;
    code.push_back(
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call.number, static_cast<uint8_t>(distance), 0));
    if (!always_allows(call)) append(answers, call.code);
  }
  append(code, answers);
  return code;
}

/// Finds the call among `calls`, sorted by number, by halves.
BpfCode search_code(std::span<const Call> calls) {
  if (auto list = list_code(calls)) return *std::move(list);
  const size_t half = calls.size() / 2;
  const BpfCode lower = search_code(calls.first(half));
  const BpfCode upper = search_code(calls.subspan(half));
  BpfCode code;
  if (lower.size() <= kFarthestJump) {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, calls[half].number,
                            static_cast<uint8_t>(lower.size()), 0));
  } else {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, calls[half].number, 0, 1));
    code.push_back(BPF_STMT(BPF_JMP | BPF_JA, static_cast<uint32_t>(lower.size())));
  }
  append(code, lower);
  append(code, upper);
  return code;
}

/// Leaves the call's number to what follows.
BpfCode entry_code(PolicyArch arch) {
  BpfCode code = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, target_of(arch).audit, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
  };
  if (arch == PolicyArch::kX86_64) {
    code.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 0, 1));
    code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
  }
  return code;
}

}  // namespace

Result<std::vector<sock_filter>> compile_seccomp_policy(const SeccompPolicy& policy,
                                                        PolicyArch arch) {
  std::vector<Call> calls;
  for (const PolicyRule& rule : policy.rules) {
    calls.push_back(TRY(with_context(compile_rule(rule, arch), rule.where)));
  }
  std::ranges::sort(calls, {}, &Call::number);
  BpfCode code = entry_code(arch);
  append(code, search_code(calls));
  if (code.size() > BPF_MAXINSNS) {
    return fail(
        Error(std::errc::value_too_large,
              format_text("the policy needs {} instructions, and the kernel takes {}; use fewer "
                          "tests",
                          code.size(), BPF_MAXINSNS)));
  }
  return code;
}

}  // namespace crosvm
