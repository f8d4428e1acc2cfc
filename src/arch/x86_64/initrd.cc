#include "arch/x86_64/initrd.h"

#include <algorithm>
#include <optional>
#include <ranges>

#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

/// The highest page-aligned place of `size` bytes that starts at `lowest` or later and ends at
/// `limit` or earlier.
std::optional<GuestAddress> highest_place(const GuestMemory& memory, uint64_t size, uint64_t lowest,
                                          uint64_t limit) {
  for (const RamRegion& region : std::views::reverse(memory.regions())) {
    const uint64_t end = std::min(region.end().value, limit);
    if (end < size) continue;
    const uint64_t start = (end - size) / kPageSize * kPageSize;
    if (start >= std::max(region.base.value, lowest)) return GuestAddress{start};
  }
  return std::nullopt;
}

constexpr uint64_t mib_up(uint64_t bytes) { return (bytes + kMiB - 1) / kMiB; }

}  // namespace

uint64_t initrd_address_max(const KernelImage& kernel) {
  // A PVH kernel keeps the address in 32 bits, and an ELF kernel says nothing.
  if ((kernel.header.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) != 0) return UINT64_MAX - 1;
  if (kernel.header.initrd_addr_max != 0) return kernel.header.initrd_addr_max;
  return kDefaultInitrdMax;
}

Result<AddressRange> load_initrd(const GuestMemory& memory, const BootFile& file,
                                 const KernelImage& kernel) {
  const std::string object = "initrd " + file.name;
  const uint64_t size = TRY(file_size(file.fd, object));
  if (size == 0) {
    return fail(Error::invalid(object + ": is empty; give a file with an archive, or no --initrd"));
  }
  const uint64_t max = initrd_address_max(kernel);
  const auto place = highest_place(memory, size, kernel.memory.end().value, max + 1);
  if (!place) {
    return fail(
        Error(std::errc::not_enough_memory,
              format_text(
                  "{}: its {} MiB do not fit beside the kernel into the guest's {} MiB of memory, "
                  "below {:#x} and above {:#x}; give a larger --mem or a smaller initrd",
                  object, mib_up(size), memory.total_bytes() / kMiB,
                  std::min(max + 1, memory.end().value), kernel.memory.end().value)));
  }
  TRY(memory.load_file(*place, file.fd, 0, size, object));
  return AddressRange{*place, size};
}

}  // namespace crosvm::x86_64
