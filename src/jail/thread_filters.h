#pragma once

#include <array>
#include <string>

#include "base/result.h"
#include "jail/sandbox_options.h"
#include "jail/seccomp_filter.h"
#include "jail/spawner.h"

namespace crosvm {

/// System call filters for the VMM's own threads, each with a policy for its role. What a filter
/// does not allow is logged by the spawner, which then kills the VMM.
class ThreadFilters {
 public:
  enum class Role {
    kControl,  ///< the main thread, once the VM runs: policy vmm_control
    kRelay,    ///< interrupts that are passed on: vmm_relay
    kVcpu,     ///< vmm_vcpu
  };

  /// Compiles what a directory of the user's has; for roles that it has no file for, ours are in
  /// force. `spawner` outlives this. Called before the process starts threads. Errors: those of the
  /// user's policies.
  static Result<ThreadFilters> prepare(Spawner& spawner, const SandboxOptions& options);

  /// Takes all capabilities from the calling thread and those that it starts, and keeps them from
  /// gaining others. Errors: the errno of the system call.
  static Result<void> give_up_privileges();

  /// The calling thread does its work from now on: without privileges, under the filter of its
  /// `role`. `name` is the thread's in logs: "vCPU 0". On any thread. Errors: those of installing.
  Result<void> enter(Role role, const std::string& name) const;

 private:
  ThreadFilters(Spawner& spawner, SeccompDefault denied_call)
      : spawner_(&spawner), denied_call_(denied_call) {}

  static constexpr size_t kRoles = 3;
  Spawner* spawner_;
  SeccompDefault denied_call_;
  std::array<std::optional<SeccompProgram>, kRoles> programs_;  // by role
};

}  // namespace crosvm
