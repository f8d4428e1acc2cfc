#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace crosvm {

/// Makes `directory`, or an empty directory in memory, the read-only root of this process's mount
/// namespace, and leaves every other mount. Errors: invalid_argument for a directory that is not
/// absolute, or is "/"; else the errno of the step, with cause and fix.
Result<void> pivot_into_root(const std::optional<std::string>& directory);

}  // namespace crosvm
