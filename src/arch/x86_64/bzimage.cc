#include "arch/x86_64/bzimage.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

constexpr size_t kHeaderOffset = 0x1F1;   // of setup_header, in the file and in the zero page
constexpr size_t kHeaderEndBase = 0x202;  // the byte before it holds the length from here on
constexpr size_t kMagicOffset = 0x202;
constexpr uint64_t kSectorSize = 512;
constexpr uint64_t kEntry64Offset = 0x200;
constexpr uint64_t kUnpackAlignment = 0x1000000;  // what we tell the kernel: see boot_params.cc

// Protocol versions that brought a field we read.
constexpr uint16_t kVersionLoadFlags = 0x0200;
constexpr uint16_t kVersionInitSize = 0x020A;
constexpr uint16_t kVersionXloadflags = 0x020C;

constexpr std::string_view kCopyAgain = "build or copy the kernel again";

/// The setup header of a file of `size` bytes; fields that its version lacks are zero.
Result<setup_header> read_header(const BootFile& file, uint64_t size) {
  std::array<std::byte, kHeaderOffset + sizeof(setup_header)> start{};
  const size_t got = TRY(read_full_at(file.fd, 0, start, "kernel " + file.name));
  const size_t header_end =
      std::min(kHeaderEndBase + std::to_integer<size_t>(start[kHeaderEndBase - 1]), start.size());
  if (got < header_end) {
    return fail(
        kernel_error(file, format_text("is cut short: {} bytes do not hold its setup header", size),
                     kCopyAgain));
  }
  setup_header header{};
  std::memcpy(&header, start.data() + kHeaderOffset, header_end - kHeaderOffset);
  if (header.version < kVersionInitSize) header.init_size = 0;
  if (header.version < kVersionXloadflags) header.xloadflags = 0;
  return header;
}

/// The end of what the kernel needs: its own place and the one it unpacks itself to, which is the
/// preferred address rounded up to the alignment.
Result<uint64_t> unpack_end(const BootFile& file, const setup_header& header) {
  if (header.init_size == 0) return uint64_t{0};
  const uint64_t start = std::max(kUnpackAlignment, uint64_t{header.pref_address});
  if (start > kFourGiB.value) {
    return fail(kernel_error(file, format_text("wants to be unpacked at {:#x}, above 4 GiB", start),
                             kCopyAgain));
  }
  return start + header.init_size;
}

}  // namespace

bool is_bzimage(std::span<const std::byte> start) {
  return start.size() >= kMagicOffset + 4 &&
         std::memcmp(start.data() + kMagicOffset, "HdrS", 4) == 0;
}

Result<KernelImage> load_bzimage(const GuestMemory& memory, const BootFile& file, uint64_t size) {
  const setup_header header = TRY(read_header(file, size));
  if (header.version < kVersionLoadFlags || (header.loadflags & LOADED_HIGH) == 0) {
    return fail(kernel_error(file, "is a zImage, which loads below 1 MiB",
                             "build the kernel as a bzImage"));
  }
  const uint64_t setup_sectors = header.setup_sects == 0 ? 4 : header.setup_sects;
  const uint64_t setup_bytes = (setup_sectors + 1) * kSectorSize;
  const uint64_t code_bytes = uint64_t{header.syssize} * 16;
  if (code_bytes <= kEntry64Offset) {
    return fail(kernel_error(file, "holds no code according to its header", kCopyAgain));
  }
  if (size < setup_bytes + code_bytes) {
    return fail(kernel_error(file,
                             format_text("is cut short: its header speaks of {} bytes, it has {}",
                                         setup_bytes + code_bytes, size),
                             kCopyAgain));
  }
  const uint64_t start = kKernelLoad.value - setup_bytes;
  TRY(check_in_ram(memory, file, start, size));
  const uint64_t end = std::max(start + size, TRY(unpack_end(file, header)));
  TRY(check_in_ram(memory, file, start, end - start));
  TRY(memory.load_file(GuestAddress{start}, file.fd, 0, size, "kernel " + file.name));

  const bool is_64 = (header.xloadflags & XLF_KERNEL_64) != 0;
  return KernelImage{
      .mode = is_64 ? EntryMode::kLong64 : EntryMode::kFlat32,
      .entry = is_64 ? kKernelLoad.value + kEntry64Offset : kKernelLoad.value,
      .memory = {GuestAddress{start}, end - start},
      .header = header,
  };
}

}  // namespace crosvm::x86_64
