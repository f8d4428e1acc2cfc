#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "arch/x86_64/kernel_image.h"

namespace crosvm::x86_64 {

/// Whether a file that starts so is an ELF file.
bool is_elf(std::span<const std::byte> start);

/// Loads all PT_LOAD segments of a 32- or 64-bit ELF kernel at their physical addresses and chooses
/// its entry. `size` is that of the file. Platform.md 1.6; PVH: Xen's x86 HVM direct boot ABI.
/// Errors: as load_kernel.
Result<KernelImage> load_elf(const GuestMemory& memory, const BootFile& file, uint64_t size,
                             KernelEntry entry);

}  // namespace crosvm::x86_64
