#pragma once

namespace crosvm {

/// The whole of `crosvm-disk`, which `crosvm` executes with its own arguments for its tools for
/// disk images; returns the exit status. Refuses every other subcommand.
int disk_tools_main(int argc, const char* const* argv);

}  // namespace crosvm
