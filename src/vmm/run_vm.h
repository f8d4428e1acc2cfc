#pragma once

#include "base/result.h"
#include "vmm/config.h"
#include "vmm/exit_state.h"

namespace crosvm {

/// Builds the VM that `config` asks for, runs it to its end on this thread, and leaves nothing
/// behind: threads joined, control socket unlinked, terminal restored. Errors: what could not be
/// built, naming the object, the cause and the fix.
Result<ExitState> run_vm(const Config& config);

}  // namespace crosvm
