#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "jail/seccomp_policy.h"

namespace crosvm {

/// What stands after the colon of a policy's line.
struct PolicyExpression {
  std::vector<Conjunction> allowed;
  std::optional<uint16_t> error;
};

/// Parses `1`, `return ERRNO`, or tests joined by `&&` and `||`. Errors: invalid_argument with
/// cause and fix, without a place.
Result<PolicyExpression> parse_policy_expression(std::string_view text, PolicyArch arch);

}  // namespace crosvm
