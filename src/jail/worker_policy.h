#pragma once

#include <string_view>

#include "base/result.h"
#include "jail/seccomp_filter.h"

namespace crosvm {

/// The policy of a device's process: find_seccomp_policy, and invalid_argument, with file, call and
/// fix, for one of a directory that does not let the process speak. Before it hands over its
/// listener nobody would hear that it stands still at a denied call.
Result<SeccompProgram> find_worker_policy(std::string_view name, const SeccompPolicySource& source);

}  // namespace crosvm
