#pragma once

#include <string>

namespace crosvm {

/// docs/options.md: every subcommand and option with what this build does with it.
std::string options_markdown();

/// The manual page, as troff with the man macros.
std::string manual_page();

/// A completion script for bash: subcommands and the options that this build supports.
std::string bash_completion();

}  // namespace crosvm
