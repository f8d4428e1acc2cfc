#include "arch/x86_64/kernel_image.h"

#include <array>
#include <cstring>
#include <span>

#include "arch/x86_64/bzimage.h"
#include "arch/x86_64/elf.h"
#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

constexpr size_t kProbeBytes = 0x400;

/// A file that is recognised only to say why it does not boot.
struct ForeignImage {
  size_t offset;
  std::string_view magic;
  std::string_view what;
  std::string_view fix;
};

using namespace std::string_view_literals;
constexpr auto kX86Fix = "give a kernel built for x86_64 (a bzImage or a vmlinux)"sv;
constexpr auto kUnpackFix = "unpack it first"sv;
constexpr ForeignImage kForeignImages[] = {
    {0x38, "ARM\x64"sv, "is a kernel for aarch64", kX86Fix},
    {0x38, "RSC\x05"sv, "is a kernel for riscv", kX86Fix},
    {0x24, "\x18\x28\x6f\x01"sv, "is a kernel for 32-bit ARM", kX86Fix},
    {0x04, "zimg"sv, "is an EFI zboot image", kX86Fix},
    {0, "\x27\x05\x19\x56"sv, "is a U-Boot image", kX86Fix},
    {0, "MZ"sv, "is an EFI or Windows executable, not a kernel", kX86Fix},
    {0, "\x1f\x8b"sv, "is compressed with gzip", kUnpackFix},
    {0, "\x28\xb5\x2f\xfd"sv, "is compressed with zstd", kUnpackFix},
    {0, "\xfd\x37zXZ\0"sv, "is compressed with xz", kUnpackFix},
    {0, "\x02\x21\x4c\x18"sv, "is compressed with lz4", kUnpackFix},
    {0, "\x04\x22\x4d\x18"sv, "is compressed with lz4", kUnpackFix},
    {0, "BZh"sv, "is compressed with bzip2", kUnpackFix},
    {0, "070701"sv, "is a cpio archive", "pass it as --initrd, and a kernel as KERNEL"},
    {0, "QFI\xfb"sv, "is a qcow2 disk image", "pass it as --block, and a kernel as KERNEL"},
};

bool has_at(std::span<const std::byte> data, size_t offset, std::string_view magic) {
  return data.size() >= offset + magic.size() &&
         std::memcmp(data.data() + offset, magic.data(), magic.size()) == 0;
}

Error not_a_kernel(const BootFile& file, std::span<const std::byte> start) {
  if (start.empty()) return kernel_error(file, "is empty", "build or copy the kernel again");
  for (const ForeignImage& foreign : kForeignImages) {
    if (has_at(start, foreign.offset, foreign.magic)) {
      return kernel_error(file, foreign.what, foreign.fix);
    }
  }
  return kernel_error(file, "is neither an ELF file nor a bzImage", kX86Fix);
}

}  // namespace

Error kernel_error(const BootFile& file, std::string_view cause, std::string_view fix) {
  return Error::invalid(format_text("kernel {}: {}; {}", file.name, cause, fix));
}

Result<void> check_in_ram(const GuestMemory& memory, const BootFile& file, uint64_t start,
                          uint64_t size) {
  for (const RamRegion& region : memory.regions()) {
    const uint64_t base = region.base.value;
    if (start >= base && start - base <= region.size && size <= region.size - (start - base)) {
      return {};
    }
  }
  const uint64_t have = memory.total_bytes() / kMiB;
  if (size > kLowMmio.value || start > kLowMmio.value - size) {
    return fail(kernel_error(
        file, format_text("wants {:#x} bytes at {:#x}, which no memory size provides", size, start),
        "build or copy the kernel again"));
  }
  const uint64_t need = (start + size + kMiB - 1) / kMiB;
  return fail(kernel_error(
      file, format_text("needs {} MiB of memory to start, the guest has {} MiB", need, have),
      format_text("give --mem {} or more", need)));
}

Result<KernelImage> load_kernel(const GuestMemory& memory, const BootFile& file,
                                KernelEntry entry) {
  const std::string object = "kernel " + file.name;
  const uint64_t size = TRY(file_size(file.fd, object));
  std::array<std::byte, kProbeBytes> buffer{};
  const size_t got = TRY(read_full_at(file.fd, 0, buffer, object));
  const auto start = std::span<const std::byte>(buffer).first(got);
  if (is_elf(start)) return load_elf(memory, file, size, entry);
  if (is_bzimage(start)) {
    if (entry != KernelEntry::kPvh) return load_bzimage(memory, file, size);
    return fail(kernel_error(file, "is a bzImage, which has no PVH entry",
                             "leave out --kernel-entry, or give the vmlinux it was made from"));
  }
  return fail(not_a_kernel(file, start));
}

}  // namespace crosvm::x86_64
