#pragma once

#include <string_view>

#include "base/result.h"
#include "jail/sandbox_options.h"

namespace crosvm {

/// Whether the directories that the options name can serve. `option` stands before the names of
/// the options in errors: "--" or "--jail ". Errors: those of check_pivot_root, and for a policy
/// directory that is none.
Result<void> check_sandbox_options(const SandboxOptions& options, std::string_view option);

/// Logs which options have no effect because there is no sandbox; `option` as above.
void warn_of_ignored(const SandboxOptions& options, std::string_view option);

}  // namespace crosvm
