#pragma once

#include <functional>

#include "base/result.h"
#include "cli/command_line.h"

namespace crosvm {

/// A subcommand on disk images with its arguments read: `create_qcow2`, `create_composite`,
/// `disk …`. Does its work and returns the exit status; errors are those of the work, for exit
/// status 1.
using ImageCommand = std::function<Result<int>()>;

/// Reads the arguments of a line that `is_disk_tool` and does not ask for help. What is in `line`
/// outlives the result. Errors: invalid_argument in the words of cli.md 1.1.2, for exit status 35.
Result<ImageCommand> read_image_command(const CommandLine& line);

}  // namespace crosvm
