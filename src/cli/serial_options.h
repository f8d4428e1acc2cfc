#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "platform/serial_config.h"

namespace crosvm {

/// One `--serial` (cli.md 1.5, SerialParameters). Errors: invalid_argument naming the key.
Result<SerialConfig> parse_serial(std::string_view text);

/// The same for a port of a console device, which `hardware` defaults to; where it says something
/// else, that is in the result, for who wants to tell of it, but means nothing.
Result<SerialConfig> parse_console_port(std::string_view text);

/// Checks the serial ports against one another, adds the console that every VM has and the ports
/// that nobody asked for, and sorts them by hardware, then number, which is the order of console=
/// parameters (cli.md 1.6, 1.7). `other_console`: the VM has one that is no serial port. Errors:
/// invalid_argument naming the ports that disagree.
Result<void> complete_serial(std::vector<SerialConfig>& ports, bool other_console = false);

}  // namespace crosvm
