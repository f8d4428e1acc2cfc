#pragma once

#include <string_view>

#include "base/result.h"

namespace crosvm {

/// Of EAGAIN, and what helps: RLIMIT_NPROC, or a cgroup's limit.
inline constexpr std::string_view kTooManyProcesses =
    "the user or the cgroup has as many processes and threads as it may; raise RLIMIT_NPROC "
    "(ulimit -u) or the cgroup's pids.max";

/// What to say when the system refuses a thread or a process with `error_number`: as
/// Error::from_errno, and which limit it is that was reached.
Error start_error(std::string_view doing, std::string_view object, int error_number);

}  // namespace crosvm
