#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "arch/x86_64/acpi_pci.h"
#include "arch/x86_64/acpi_user.h"
#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm::x86_64 {

/// What the ACPI tables describe (platform.md 1.11).
struct AcpiConfig {
  uint32_t vcpus = 1;
  /// With host topology: the APIC id of each vCPU. Empty: a vCPU's index.
  std::vector<uint32_t> apic_ids = {};
  uint16_t pm_base = 0;  ///< first I/O port of the power-management block (platform.md 1.12)
  uint16_t sci_gsi = 0;
  bool low_power_s0 = false;        ///< `--force-s2idle`
  std::optional<AcpiPci> pci = {};  ///< absent: no host bridge, MCFG, MB00 or VCFG
  UserAcpiTables user = {};
};

/// The table area as it stands in memory from `base` on: the RSDP, then every other table at a
/// multiple of 64 bytes. `base` is a multiple of 64.
TableBytes build_acpi(GuestAddress base, const AcpiConfig& config);

/// Writes the tables to [base, end). Errors: no_buffer_space when they do not fit, naming the
/// user's tables, bad_address outside RAM.
Result<void> write_acpi(const GuestMemory& memory, GuestAddress base, GuestAddress end,
                        const AcpiConfig& config);

// The single tables, each complete with header and checksum.

TableBytes build_facs();
TableBytes build_dsdt(const AcpiConfig& config);
TableBytes build_fadt(const AcpiConfig& config, GuestAddress facs, GuestAddress dsdt);
TableBytes build_madt(const AcpiConfig& config);
TableBytes build_mcfg(const AcpiPci& pci);

}  // namespace crosvm::x86_64
