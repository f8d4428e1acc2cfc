#include "memory/huge_pages.h"

#include <fcntl.h>

#include <array>
#include <charconv>

#include "base/fd.h"
#include "base/log.h"

namespace crosvm {
namespace {

constexpr const char* kFreeHugetlb = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
constexpr const char* kShmemEnabled = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// The text of a small sysfs file, empty when it cannot be read.
std::string read_sysfs(const char* path) {
  const auto file = open_path(path, O_RDONLY);
  if (!file) return {};
  std::array<char, 256> text;
  const auto length = read_full(*file, std::as_writable_bytes(std::span(text)), path);
  return std::string(text.data(), length.value_or(0));
}

}  // namespace

bool can_use_hugetlb(std::span<const RamRange> ranges) {
  uint64_t wanted = 0;
  for (const RamRange& range : ranges) {
    if ((range.base.value | range.size) % kHugePageSize != 0) {
      log::debug("hugetlb: the memory range at {:#x} is not whole huge pages", range.base.value);
      return false;
    }
    wanted += range.size / kHugePageSize;
  }
  const std::string text = read_sysfs(kFreeHugetlb);
  uint64_t available = 0;
  std::from_chars(text.data(), text.data() + text.size(), available);
  if (available < wanted) {
    log::debug("hugetlb: {} free pages of 2 MiB, {} needed", available, wanted);
    return false;
  }
  return true;
}

std::string_view selected_mode(std::string_view shmem_enabled) {
  const size_t open = shmem_enabled.find('[');
  const size_t close = shmem_enabled.find(']', open);
  if (open == std::string_view::npos || close == std::string_view::npos) return {};
  return shmem_enabled.substr(open + 1, close - open - 1);
}

bool shmem_mode_allows_huge_pages(std::string_view mode) {
  return mode == "always" || mode == "within_size" || mode == "advise" || mode == "force";
}

bool report_shmem_huge_pages(uint64_t bytes) {
  const std::string text = read_sysfs(kShmemEnabled);
  const std::string_view mode = selected_mode(text);
  if (shmem_mode_allows_huge_pages(mode)) {
    log::info("guest memory: {} MiB in shmem huge pages ({} is {})", bytes >> 20, kShmemEnabled,
              mode);
    return true;
  }
  log::warn(
      "guest memory: {} MiB in small pages, --hugepages has no effect: {} is {} and too few "
      "hugetlb pages are free; write advise to it, or {} to /proc/sys/vm/nr_hugepages",
      bytes >> 20, kShmemEnabled, mode.empty() ? "missing" : mode,
      (bytes + kHugePageSize - 1) / kHugePageSize);
  return false;
}

}  // namespace crosvm
