#pragma once

#include <sys/types.h>

#include <functional>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// A child process.
struct NamespacedProcess {
  pid_t pid = -1;  ///< as this process sees it; to itself it is 1
  Fd pidfd;        ///< readable when it has ended; waitid(P_PIDFD) reaps it
};

/// What a child has of our memory until it executes a program.
enum class ChildMemory {
  kCopy,    ///< a copy, as after fork
  kShared,  ///< ours, as after vfork: cheaper. We sleep until it executes or ends
};

/// Starts a process in new user, PID, mount, IPC, UTS and cgroup namespaces; the network namespace
/// is ours. There, its user and group 0 are our effective ones outside, nobody else exists, and it
/// has every capability, until it gives them up (enter_jail). Written before `execute` runs, which
/// is called in the child to execute a program: between clone and exec, so it may only make system
/// calls and allocates nothing; with shared memory it needs less than 8 KiB of stack, and we have
/// no handlers of signals. If it returns, the child exits with status 127. The caller must have one
/// thread only.
///
/// Errors: the errno of clone3 or of writing the maps, with the setting of the host or container
/// that is the likely cause.
Result<NamespacedProcess> clone_into_namespaces(const std::function<void()>& execute,
                                                ChildMemory memory = ChildMemory::kCopy);

/// What is likely to forbid namespaces or mounts to us when a call for them fails with `error`, and
/// what helps: ": the sysctl … is 0; set it to 1, or …".
std::string sandbox_hint(int error);

}  // namespace crosvm
