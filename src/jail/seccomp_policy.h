#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace crosvm {

/// Machines for which policies exist. Names of calls and constants have their values there.
enum class PolicyArch { kX86_64, kAarch64, kRiscv64 };

/// The machine that this program runs on.
constexpr PolicyArch host_policy_arch() {
#if defined(__x86_64__)
  return PolicyArch::kX86_64;
#elif defined(__aarch64__)
  return PolicyArch::kAarch64;
#elif defined(__riscv)
  return PolicyArch::kRiscv64;
#else
#error "no system call policies for this architecture"
#endif
}

/// "x86_64", "aarch64", "riscv64": also the folder of the policies.
std::string_view name_of(PolicyArch arch);
std::optional<PolicyArch> policy_arch_of(std::string_view name);

/// `argN OP value`. All 64 bits of the register count, also where the kernel looks at 32: what has
/// other upper bits than the policy's author thought of is not equal, and denied. A negative value
/// has its sign extended.
struct ArgumentTest {
  enum class Operator {
    kEqual,
    kNotEqual,
    kLess,
    kLessOrEqual,
    kGreater,
    kGreaterOrEqual,
    kAnyBit,    ///< `&`: at least one of these bits
    kOnlyBits,  ///< `in`: no bit but these
  };
  uint8_t argument = 0;  ///< 0..5
  Operator op = Operator::kEqual;
  uint64_t value = 0;
};

/// Tests joined by `&&`; without any it always holds.
using Conjunction = std::vector<ArgumentTest>;

/// What one system call may do: any of `allowed`; else it returns `error`; else it is denied.
struct PolicyRule {
  std::string call;
  std::vector<Conjunction> allowed;
  std::optional<uint16_t> error;
  std::string where;  ///< "file:line" of its first mention, for messages
};

/// A system call policy (platform.md 5.3): each call once, in order of first mention. A call that
/// is not in it is denied.
struct SeccompPolicy {
  std::vector<PolicyRule> rules;
};

/// Returns the text of the file at `path`.
using PolicyReader = std::function<Result<std::string>(const std::string& path)>;
/// Reads regular files; no more than a megabyte.
Result<std::string> read_policy_file(const std::string& path);

/// Parses the policy at `path` and what it includes. Paths below /usr/share/policy/crosvm mean the
/// folder of `path`, as other relative ones do. Constants are those of `arch`. Errors: those of
/// `read`, and invalid_argument with file, line, cause and fix.
Result<SeccompPolicy> parse_seccomp_policy(const std::string& path, PolicyArch arch,
                                           const PolicyReader& read = read_policy_file);

/// Adds what `more` allows; where one of the two returns an error that the other does not, the call
/// is allowed as far as the other allows it.
void add_to_policy(SeccompPolicy& policy, SeccompPolicy more);

}  // namespace crosvm
