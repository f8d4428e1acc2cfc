#pragma once

#include <asm/bootparam.h>

#include <string>
#include <string_view>

#include "arch/kernel_entry.h"
#include "arch/x86_64/memory_map.h"
#include "base/fd.h"
#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm::x86_64 {

/// A file the guest boots from: borrowed for one call, with the name the user knows it by.
struct BootFile {
  const Fd& fd;
  std::string name;
};

/// The processor mode a kernel is entered in.
enum class EntryMode {
  kLong64,  ///< 64-bit, paging on, RSI = zero page
  kFlat32,  ///< 32-bit protected mode, paging off, ESI = zero page
  kPvh,     ///< 32-bit protected mode, paging off, EBX = PVH start info
};

/// A kernel that stands in guest memory.
struct KernelImage {
  EntryMode mode = EntryMode::kLong64;
  uint64_t entry = 0;
  /// What the kernel takes before it can look at a memory map: the image itself, and for a bzImage
  /// the place it unpacks to. An initrd must start after it.
  AddressRange memory;
  setup_header header{};  ///< the file's own, or one that says what an ELF kernel can take
};

/// Recognises `file` (ELF, then bzImage; platform.md 1.6) and loads it. `entry` other than kAuto
/// forces how an ELF kernel is entered; a bzImage only has the Linux protocol.
/// Errors: invalid_argument naming the file, what is wrong with it and what to do; bad_address or
/// the errno of a read.
Result<KernelImage> load_kernel(const GuestMemory& memory, const BootFile& file, KernelEntry entry);

/// "kernel NAME: CAUSE; FIX"
Error kernel_error(const BootFile& file, std::string_view cause, std::string_view fix);

/// Checks that [start, start+size) is RAM. Errors: as load_kernel, with the sizes.
Result<void> check_in_ram(const GuestMemory& memory, const BootFile& file, uint64_t start,
                          uint64_t size);

}  // namespace crosvm::x86_64
