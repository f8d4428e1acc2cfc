#pragma once

#include <string>
#include <string_view>

#include "cli/command_line.h"

namespace crosvm {

/// `text` broken at spaces into lines of at most `width` columns, each after `indent` spaces.
std::string wrap_text(std::string_view text, size_t indent, size_t width = 80);

/// "-c, --cpus KEY=VALUE,…".
std::string synopsis(const Option& option);

/// What `--help` prints for the last subcommand of `line`; `program` is what we were called by.
std::string help_text(std::string_view program, const CommandLine& line);

}  // namespace crosvm
