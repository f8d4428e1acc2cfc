#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "arch/x86_64/acpi_pci.h"
#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm::x86_64 {

/// What the MP table describes (platform.md 1.13; Intel MultiProcessor Specification 1.4).
struct MptableConfig {
  uint32_t vcpus = 1;  ///< below 255
  uint16_t sci_gsi = 0;
  std::optional<uint8_t> last_pci_bus = {};  ///< absent: no PCI
  std::vector<PciIntx> pci_irqs = {};
};

/// The configuration table. Errors: invalid_argument for more vCPUs than its ids can name.
Result<std::vector<std::byte>> build_mptable(const MptableConfig& config);

/// Writes the table to [base, floating_pointer) and the 16 bytes that lead to it to
/// `floating_pointer`, a multiple of 16. Errors: also no_buffer_space when it does not fit,
/// bad_address outside RAM.
Result<void> write_mptable(const GuestMemory& memory, GuestAddress base,
                           GuestAddress floating_pointer, const MptableConfig& config);

}  // namespace crosvm::x86_64
