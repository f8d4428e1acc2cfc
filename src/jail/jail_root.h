#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace crosvm {

/// Whether the directory `path` can be the root of a jail: absolute, not "/", empty, and to be
/// entered by this process. Errors name `option`, `path` and the fix.
Result<void> check_pivot_root(const std::string& path, std::string_view option);

/// Makes `directory`, or an empty directory in memory, the read-only root of this process's mount
/// namespace, and leaves every other mount. With text for /etc/resolv.conf it is the one in memory,
/// with that file in it. Errors: those of check_pivot_root, else the errno of the step, with cause
/// and fix.
Result<void> pivot_into_root(const std::optional<std::string>& directory,
                             std::string_view resolv_conf = {});

}  // namespace crosvm
