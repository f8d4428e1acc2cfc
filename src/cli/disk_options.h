#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "devices/block/block_config.h"
#include "vmm/config.h"

namespace crosvm {

/// What an old disk flag decides, whatever its value says (cli.md 1.4 E).
struct ForcedDiskKeys {
  bool read_only;
  bool root;
};

/// One `--block` (cli.md 1.5, DiskOption), or an old flag that forces some keys. Errors:
/// invalid_argument naming the key.
Result<BlockConfig> parse_disk(std::string_view text,
                               std::optional<ForcedDiskKeys> forced = std::nullopt);

/// The letters after /dev/vd of the disk with this index: "a", …, "z", "aa", … (cli.md 1.7).
std::string disk_letters(size_t index);

/// Puts the disks, in the order of the command line, into `config`, with the kernel's root= if one
/// of them is the root. `executor` is for disks that name none. Errors: invalid_argument when two
/// are the root (cli.md 1.6), or the same file, unless both are read-only or one goes without lock.
Result<void> add_disks(const std::vector<BlockConfig>& disks, std::optional<AsyncExecutor> executor,
                       Config& config);

}  // namespace crosvm
