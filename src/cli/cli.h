#pragma once

#include <functional>

#include "base/result.h"
#include "vmm/config.h"
#include "vmm/exit_state.h"

namespace crosvm {

/// Builds and runs a VM: `run_vm` of vmm/run_vm.h, or a test's.
using RunVm = std::function<Result<ExitState>(const Config&)>;

/// The whole program: takes the command line apart, does what it says and returns the exit status
/// (cli.md 6.1): 35 for a mistake in the arguments, 1 for any other error.
int crosvm_main(int argc, const char* const* argv, const RunVm& run_vm);

}  // namespace crosvm
