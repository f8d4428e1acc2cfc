#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/option_table.h"

namespace crosvm {

/// An option as it was given.
struct GivenOption {
  const Option* option;
  std::string_view spelling;  ///< "--mem" or "-m"
  std::string_view value;     ///< empty for a switch

  /// "Error parsing option '--mem' with value 'x': REASON".
  Error error(std::string_view reason) const;
};

/// A command line taken apart by the option table. All text belongs to the arguments.
struct CommandLine {
  struct Level {
    const Command* command;
    std::vector<GivenOption> options;  ///< in order
  };
  std::vector<Level> levels;  ///< `crosvm`, then each subcommand
  std::vector<std::string_view> positionals;
  bool help = false;  ///< help for the last level was asked for; nothing may be missing then

  const Command& command() const { return *levels.back().command; }
  const std::vector<GivenOption>& options() const { return levels.back().options; }
  const std::vector<GivenOption>& global_options() const { return levels.front().options; }
  /// "gpu add-displays"; empty for `crosvm` itself.
  std::string command_name() const;
};

/// Takes apart the arguments after the program's name (cli.md 1.1 and 2.2). Values are not looked
/// into. Errors: invalid_argument, in the words of 1.1.2.
Result<CommandLine> parse_command_line(const Command& root,
                                       std::span<const std::string_view> arguments);

/// Refuses subcommands and options that this build does not support, by name.
Result<void> check_supported(const CommandLine& line);

}  // namespace crosvm
