#pragma once

#include <string>

#include "base/result.h"

namespace crosvm::doctor {

/// Runs `path --check`, which an executable of ours answers by ending at once, and waits for its
/// end. Errors: that it cannot be executed; io_error with what it, or who loads its libraries, says
/// first when it ends otherwise; timed_out after some seconds, when it is killed.
Result<void> start_program(const std::string& path);

}  // namespace crosvm::doctor
