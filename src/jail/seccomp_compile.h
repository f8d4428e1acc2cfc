#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "jail/seccomp_policy.h"

namespace crosvm {

/// What a compiled policy returns for a call that it does not allow, until another action is put in
/// its place (SeccompProgram). It kills, so forgetting to is safe; nothing else in a program kills
/// one thread alone.
inline constexpr uint32_t kSeccompDefaultMark = SECCOMP_RET_KILL_THREAD;

/// The BPF program of `policy`, with kSeccompDefaultMark as its default action: a balanced tree of
/// call numbers, then the tests of arguments. Calls of another architecture's numbering, and x32
/// calls, kill the process. Errors: invalid_argument with file, line, cause and fix.
Result<std::vector<sock_filter>> compile_seccomp_policy(const SeccompPolicy& policy,
                                                        PolicyArch arch);

}  // namespace crosvm
