#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "jail/seccomp_policy.h"

namespace crosvm {

using BpfCode = std::vector<sock_filter>;

/// The instructions that judge the arguments of one call; each way through them returns, for what
/// the rule does not allow `otherwise`. Errors: invalid_argument for too long a row of tests.
Result<BpfCode> seccomp_rule_code(const PolicyRule& rule, uint32_t otherwise);

}  // namespace crosvm
