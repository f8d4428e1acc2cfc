#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm::x86_64 {

/// What the guest reads of itself by SMBIOS (platform.md 1.14; cli.md 1.5, Smbios). An empty string
/// is "not specified".
struct SmbiosConfig {
  std::string bios_vendor = "crosvm";
  std::string bios_version = "0";
  std::string manufacturer = "ChromiumOS";
  std::string product_name = "crosvm";
  std::string serial_number = {};
  std::array<uint8_t, 16> uuid = {};          ///< in the order of the text (RFC 4122); nil: none
  std::vector<std::string> oem_strings = {};  ///< at most 255
  uint64_t bios_size = 0;                     ///< bytes of the firmware image; 0 without one
};

/// The 24-byte entry point and the structures after it, as they stand in memory from `base` on.
/// Errors: invalid_argument naming the string that has a NUL, an empty OEM string or too many.
Result<std::vector<std::byte>> build_smbios(GuestAddress base, const SmbiosConfig& config);

/// Writes them to [base, end). Errors: also no_buffer_space when they do not fit, bad_address
/// outside RAM.
Result<void> write_smbios(const GuestMemory& memory, GuestAddress base, GuestAddress end,
                          const SmbiosConfig& config);

}  // namespace crosvm::x86_64
