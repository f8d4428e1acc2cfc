#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "arch/x86_64/kernel_image.h"
#include "arch/x86_64/memory_map.h"
#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm::x86_64 {

inline constexpr size_t kRngSeedBytes = 256;

/// What the zero page tells a kernel that is entered by the Linux boot protocol.
struct ZeroPageContents {
  setup_header header{};  ///< the kernel's own
  std::optional<AddressRange> initrd;
  std::span<const E820Entry> e820;
};

/// Writes the list of `setup_data` with a fresh RNG seed at kSetupData. Errors: the errno of
/// getrandom, bad_address.
Result<void> write_setup_data(const GuestMemory& memory);

/// Writes `boot_params` at kZeroPage, pointing to kCommandLine and kSetupData. Errors:
/// invalid_argument for too many e820 entries or an initrd of 4 GiB and more; bad_address.
Result<void> write_zero_page(const GuestMemory& memory, const ZeroPageContents& contents);

}  // namespace crosvm::x86_64
