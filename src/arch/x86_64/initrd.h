#pragma once

#include <cstdint>

#include "arch/x86_64/kernel_image.h"
#include "arch/x86_64/memory_map.h"
#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm::x86_64 {

/// Highest address of an initrd for a kernel that says nothing about it.
inline constexpr uint64_t kDefaultInitrdMax = 0x37FFFFFF;

/// Highest address that the initrd's last byte may have, by what `kernel` says.
uint64_t initrd_address_max(const KernelImage& kernel);

/// Loads `file` as high as `kernel` allows, page-aligned and after the kernel (platform.md 1.7).
/// Errors: invalid_argument for an empty file, not_enough_memory with the sizes, else as load_file.
Result<AddressRange> load_initrd(const GuestMemory& memory, const BootFile& file,
                                 const KernelImage& kernel);

}  // namespace crosvm::x86_64
