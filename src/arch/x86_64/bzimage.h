#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "arch/x86_64/kernel_image.h"

namespace crosvm::x86_64 {

/// Whether the first KiB of a file says that it is a Linux kernel with a setup header.
bool is_bzimage(std::span<const std::byte> start);

/// Places the whole file so that its protected-mode code lands at 0x200000. `size` is that of the
/// file. Linux x86 boot protocol; platform.md 1.6. Errors: as load_kernel.
Result<KernelImage> load_bzimage(const GuestMemory& memory, const BootFile& file, uint64_t size);

}  // namespace crosvm::x86_64
