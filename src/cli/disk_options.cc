#include "cli/disk_options.h"

#include "base/format.h"

namespace crosvm {

Result<BlockConfig> parse_disk(std::string_view text, std::optional<ForcedDiskKeys> forced) {
  BlockConfig disk = TRY(BlockConfig::parse(TRY(KeyValues::parse(text))));
  if (forced) {
    disk.read_only = forced->read_only;
    disk.root = forced->root;
  }
  return disk;
}

std::string disk_letters(size_t index) {
  std::string letters;
  // Digits from a to z where none of them is a zero: after z comes aa.
  for (size_t rest = index + 1; rest > 0; rest = (rest - 1) / 26) {
    letters.insert(letters.begin(), static_cast<char>('a' + (rest - 1) % 26));
  }
  return letters;
}

Result<void> add_disks(const std::vector<BlockConfig>& disks, std::optional<AsyncExecutor> executor,
                       Config& config) {
  const BlockConfig* root = nullptr;
  for (size_t index = 0; index < disks.size(); ++index) {
    BlockConfig disk = disks[index];
    if (!disk.async_executor) disk.async_executor = executor;
    if (disk.root && root) {
      return fail(Error::invalid(format_text(
          "disks {} and {} are both the root; leave out root of one", root->path, disk.path)));
    }
    if (disk.root) {
      root = &disks[index];
      config.root_parameter =
          format_text("root=/dev/vd{} {}", disk_letters(index), disk.read_only ? "ro" : "rw");
    }
    config.disks.push_back({.type = "block",
                            .name = format_text("block{}", index),
                            .text = disk.to_text(),
                            .pci_address = disk.pci_address});
  }
  return {};
}

}  // namespace crosvm
