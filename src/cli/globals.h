#pragma once

#include <string>
#include <string_view>

#include "base/log.h"
#include "base/result.h"
#include "cli/command_line.h"

/// What our programs have in common: the options before the subcommand, and how a command ends.
namespace crosvm {

/// Exit statuses (cli.md 6.1).
inline constexpr int kSuccess = 0;
inline constexpr int kFailure = 1;
inline constexpr int kInvalidArguments = 35;

/// The options before the subcommand.
struct Globals {
  bool extended_status = false;
  log::Options logging;
  const GivenOption* log_level = nullptr;  ///< as given, for errors; belongs to the command line
  std::string (*document)() = nullptr;     ///< to be printed instead of doing anything
};

Globals read_globals(const CommandLine& line);

/// Logs as `globals` says from here on. Errors: invalid_argument naming the option.
Result<void> configure_log(const Globals& globals);

/// Warns of each option given that is deprecated or has no effect.
void warn_of_deprecated(const CommandLine& line);

/// Writes to standard output as it is.
void print(std::string_view text);

/// Tells of a mistake in the arguments; returns the exit status.
int refuse(const Error& error);
/// Tells of any other error; returns the exit status.
int fail_with(const Error& error);
/// Says that all went well; returns the exit status.
int succeed();

}  // namespace crosvm
