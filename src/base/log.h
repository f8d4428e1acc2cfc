#pragma once

#include <fmt/core.h>

#include <source_location>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.h"

/// Log records to stderr and syslog (cli.md 6.3). The library behind it is included in log.cc
/// alone.
namespace crosvm::log {

enum class Level { kTrace, kDebug, kInfo, kWarn, kError, kOff };

/// What is logged where. Until `configure` is called: info and above, to both sinks.
struct Options {
  std::string filter = "info";  ///< comma list of LEVEL or module=LEVEL (cli.md 6.2)
  bool use_syslog = true;
  std::string syslog_tag = "crosvm";
};

/// Replaces the options. Errors: invalid_argument naming the part of the filter that is wrong.
Result<void> configure(const Options& options);
/// What is in force, for a process of ours that is to log alike.
Options options();
/// Opens what the log writes to, for a process that soon cannot open files any more; a syslog that
/// is not there or ends is left out from here on.
void open_sinks();

/// Whether a record of this level from this source file would be written.
bool enabled(Level level, std::string_view module);

/// Writes one record. `module` is like "crosvm::platform::serial".
void write(Level level, std::string_view module, std::string_view file, int line,
           std::string_view text);

/// "crosvm::platform::serial" for ".../src/platform/serial.cc".
std::string module_of(std::string_view file);

/// A format string that remembers where it was written.
template <class... Args>
struct Format {
  template <class S>
  consteval Format(const S& text, std::source_location where = std::source_location::current())
      : text(text), where(where) {}
  fmt::format_string<Args...> text;
  std::source_location where;
};

/// Formats and writes when enabled; not to be called directly.
void vwrite(Level level, const std::source_location& where, fmt::string_view text,
            fmt::format_args args);

template <class... Args>
void error(Format<std::type_identity_t<Args>...> format, Args&&... args) {
  vwrite(Level::kError, format.where, format.text, fmt::make_format_args(args...));
}
template <class... Args>
void warn(Format<std::type_identity_t<Args>...> format, Args&&... args) {
  vwrite(Level::kWarn, format.where, format.text, fmt::make_format_args(args...));
}
template <class... Args>
void info(Format<std::type_identity_t<Args>...> format, Args&&... args) {
  vwrite(Level::kInfo, format.where, format.text, fmt::make_format_args(args...));
}
template <class... Args>
void debug(Format<std::type_identity_t<Args>...> format, Args&&... args) {
  vwrite(Level::kDebug, format.where, format.text, fmt::make_format_args(args...));
}

}  // namespace crosvm::log
