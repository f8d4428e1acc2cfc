#include "arch/x86_64/boot_params.h"

#include <sys/random.h>

#include <array>

#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

constexpr uint8_t kUnregisteredLoader = 0xFF;
constexpr uint16_t kBootFlag = 0xAA55;
constexpr uint32_t kHeaderMagic = 0x53726448;  // "HdrS"
constexpr uint32_t kKernelAlignment = 0x1000000;

/// A node of the setup_data list with its payload; the only and so the last one.
struct RngSeedNode {
  uint64_t next = 0;
  uint32_t type = SETUP_RNG_SEED;
  uint32_t length = kRngSeedBytes;
  std::array<std::byte, kRngSeedBytes> seed{};
};

Result<void> fill_random(std::span<std::byte> to) {
  while (!to.empty()) {
    const ssize_t got = ::getrandom(to.data(), to.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno("reading", "random bytes for the guest's seed"));
    to = to.subspan(static_cast<size_t>(got));
  }
  return {};
}

constexpr uint32_t low_half(uint64_t value) { return static_cast<uint32_t>(value); }
constexpr uint32_t high_half(uint64_t value) { return static_cast<uint32_t>(value >> 32); }

}  // namespace

Result<void> write_setup_data(const GuestMemory& memory) {
  static_assert(kSetupData.value % alignof(RngSeedNode) == 0);
  RngSeedNode node;
  TRY(fill_random(node.seed));
  return memory.write(kSetupData, node);
}

Result<void> write_zero_page(const GuestMemory& memory, const ZeroPageContents& contents) {
  if (contents.e820.size() >= kE820Limit) {
    return fail(Error::invalid(format_text("the e820 table has {} entries, {} are the most",
                                           contents.e820.size(), kE820Limit - 1)));
  }
  boot_params params{};
  params.hdr = contents.header;
  params.hdr.type_of_loader = kUnregisteredLoader;
  params.hdr.boot_flag = kBootFlag;
  params.hdr.header = kHeaderMagic;
  params.hdr.kernel_alignment = kKernelAlignment;
  params.hdr.setup_data = kSetupData.value;
  params.hdr.cmd_line_ptr = low_half(kCommandLine.value);
  params.ext_cmd_line_ptr = high_half(kCommandLine.value);
  if (contents.initrd) {
    if (contents.initrd->size > UINT32_MAX) {
      return fail(Error::invalid("the initrd has 4 GiB or more; give a smaller one"));
    }
    params.hdr.ramdisk_image = low_half(contents.initrd->start.value);
    params.ext_ramdisk_image = high_half(contents.initrd->start.value);
    params.hdr.ramdisk_size = low_half(contents.initrd->size);
  }
  for (const E820Entry& entry : contents.e820) {
    params.e820_table[params.e820_entries++] = {entry.range.start.value, entry.range.size,
                                                static_cast<uint32_t>(entry.type)};
  }
  return memory.write_bytes(kZeroPage, std::as_bytes(std::span(&params, 1)));
}

}  // namespace crosvm::x86_64
