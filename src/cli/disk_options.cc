#include "cli/disk_options.h"

#include <sys/stat.h>

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

namespace {

/// Whether both paths are of one file or block device; false where one cannot be looked at, as
/// opening it will say why.
bool same_file(const std::string& one, const std::string& other) {
  struct stat a{};
  struct stat b{};
  if (::stat(one.c_str(), &a) != 0 || ::stat(other.c_str(), &b) != 0) return false;
  if (S_ISBLK(a.st_mode) && S_ISBLK(b.st_mode)) return a.st_rdev == b.st_rdev;
  return S_ISREG(a.st_mode) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/// The lock of a file tells of other VMs, and of nobody when both disks have it by one descriptor.
Result<void> check_shared(const std::vector<BlockConfig>& disks, size_t index) {
  const BlockConfig& disk = disks[index];
  for (size_t i = 0; i < index; ++i) {
    const BlockConfig& other = disks[i];
    if (!disk.lock || !other.lock || (disk.read_only && other.read_only)) continue;
    if (!same_file(other.path, disk.path)) continue;
    return fail(Error::invalid(format_text(
        "disks {} (block{}) and {} (block{}) are the same file, and one would be written behind "
        "the other's back; leave one out, or give ro to both",
        other.path, i, disk.path, index)));
  }
  return {};
}

}  // namespace

Result<void> add_disks(const std::vector<BlockConfig>& disks, std::optional<AsyncExecutor> executor,
                       Config& config) {
  const BlockConfig* root = nullptr;
  for (size_t index = 0; index < disks.size(); ++index) {
    BlockConfig disk = disks[index];
    if (!disk.async_executor) disk.async_executor = executor;
    TRY(check_shared(disks, index));
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
