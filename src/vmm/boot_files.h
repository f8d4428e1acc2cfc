#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "vmm/config.h"

namespace crosvm {

/// What a guest boots from, open for reading.
struct BootFiles {
  Fd kernel;
  std::optional<Fd> initrd;
};

/// Opens the kernel and the initrd. Errors name the file, the cause and the fix; a directory or a
/// pipe is refused here, contents are judged by the loaders.
Result<BootFiles> open_boot_files(const Config& config);

/// Reads a whole file that the user named, of at most `limit` bytes; `what` says what it is.
Result<std::vector<std::byte>> read_user_file(const std::string& path, std::string_view what,
                                              uint64_t limit);

}  // namespace crosvm
