#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm::x86_64 {

/// The UART that the kernel writes to before it has a driver.
struct EarlyConsole {
  bool mmio = false;  ///< `address` is a physical address, not an I/O port
  uint64_t address = 0;
};

/// What the kernel command line is made of (platform.md 1.7).
struct CommandLineParts {
  std::vector<std::string> consoles;  ///< "ttyS0", "hvc0", in order
  std::optional<EarlyConsole> early_console;
  std::vector<std::string> params;  ///< the user's, in order
};

/// "panic=-1 console=… earlycon=… PARAMS". Errors: invalid_argument naming a parameter with a
/// character other than printable ASCII, or a line that no kernel takes.
Result<std::string> build_command_line(const CommandLineParts& parts);

/// Checks `line` against a kernel's limit: `kernel_limit` is `cmdline_size` of its setup header,
/// bytes without the NUL, 0 meaning 255. Errors: invalid_argument with both lengths.
Result<void> check_command_line(std::string_view line, uint32_t kernel_limit);

/// Writes `line` and a NUL at kCommandLine. Errors: as check_command_line; bad_address.
Result<void> write_command_line(const GuestMemory& memory, std::string_view line,
                                uint32_t kernel_limit);

}  // namespace crosvm::x86_64
