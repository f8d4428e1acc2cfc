#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace crosvm {

/// What /proc/meminfo says of the host, in bytes.
struct HostMemory {
  uint64_t total = 0;
  uint64_t available = 0;  ///< what can be had without swapping
  uint64_t swap_total = 0;
};

/// Reads the text of /proc/meminfo. Errors: invalid_argument naming the line that is missing or
/// malformed.
Result<HostMemory> parse_meminfo(std::string_view text);

/// Whether `host` can hold `bytes` of guest memory: nothing when it easily can, a warning when it
/// must swap or starve others. Errors: not_enough_memory naming both sizes and the fix.
Result<std::optional<std::string>> judge_guest_memory(uint64_t bytes, const HostMemory& host);

/// Judges `bytes` by this host's /proc/meminfo and logs the warning, if any. Where there is no
/// readable meminfo nothing is judged.
Result<void> check_host_memory(uint64_t bytes);

}  // namespace crosvm
