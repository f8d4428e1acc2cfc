#pragma once

#include <functional>
#include <optional>

#include "base/result.h"
#include "cli/command_line.h"

namespace crosvm {

/// A subcommand on disk images with its arguments read: `create_qcow2`, `create_composite`,
/// `disk …`. Does its work and returns the exit status; errors are those of the work, for exit
/// status 1.
using ImageCommand = std::function<Result<int>()>;

/// Reads the arguments; nothing for other subcommands. What is in `line` outlives the result.
/// Errors: invalid_argument in the words of cli.md 1.1.2, for exit status 35.
Result<std::optional<ImageCommand>> read_image_command(const CommandLine& line);

}  // namespace crosvm
