#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "memory/guest_address.h"

/// The binary shapes of ACPI tables (ACPI 6.3, chapter 5.2); all fields little-endian.
namespace crosvm::x86_64 {

using TableBytes = std::vector<std::byte>;

/// DESCRIPTION_HEADER (5.2.6).
struct [[gnu::packed]] AcpiTableHeader {
  char signature[4];
  uint32_t length;
  uint8_t revision;
  uint8_t checksum;
  char oem_id[6];
  char oem_table_id[8];
  uint32_t oem_revision;
  char creator_id[4];
  uint32_t creator_revision;
};
static_assert(sizeof(AcpiTableHeader) == 36);

/// Generic Address Structure (5.2.3.2).
struct [[gnu::packed]] AcpiGenericAddress {
  uint8_t space;  ///< 1 is I/O ports
  uint8_t bit_width;
  uint8_t bit_offset;
  uint8_t access_size;  ///< 1 is bytes
  uint64_t address;
};
static_assert(sizeof(AcpiGenericAddress) == 12);

/// Root System Description Pointer (5.2.5.3).
struct [[gnu::packed]] AcpiRsdp {
  char signature[8];
  uint8_t checksum;  ///< of the first 20 bytes
  char oem_id[6];
  uint8_t revision;
  uint32_t rsdt_address;
  uint32_t length;
  uint64_t xsdt_address;
  uint8_t extended_checksum;
  uint8_t reserved[3];
};
static_assert(sizeof(AcpiRsdp) == 36);

/// Firmware ACPI Control Structure (5.2.10).
struct [[gnu::packed]] AcpiFacs {
  char signature[4];
  uint32_t length;
  uint32_t hardware_signature;
  uint32_t firmware_waking_vector;
  uint32_t global_lock;
  uint32_t flags;
  uint64_t x_firmware_waking_vector;
  uint8_t version;
  uint8_t reserved[31];
};
static_assert(sizeof(AcpiFacs) == 64);

/// Fixed ACPI Description Table (5.2.9).
struct [[gnu::packed]] AcpiFadt {
  AcpiTableHeader header;
  uint32_t firmware_ctrl;
  uint32_t dsdt;
  uint8_t reserved0;
  uint8_t preferred_pm_profile;
  uint16_t sci_int;
  uint32_t smi_cmd;
  uint8_t acpi_enable;
  uint8_t acpi_disable;
  uint8_t s4bios_req;
  uint8_t pstate_cnt;
  uint32_t pm1a_evt_blk;
  uint32_t pm1b_evt_blk;
  uint32_t pm1a_cnt_blk;
  uint32_t pm1b_cnt_blk;
  uint32_t pm2_cnt_blk;
  uint32_t pm_tmr_blk;
  uint32_t gpe0_blk;
  uint32_t gpe1_blk;
  uint8_t pm1_evt_len;
  uint8_t pm1_cnt_len;
  uint8_t pm2_cnt_len;
  uint8_t pm_tmr_len;
  uint8_t gpe0_blk_len;
  uint8_t gpe1_blk_len;
  uint8_t gpe1_base;
  uint8_t cst_cnt;
  uint16_t p_lvl2_lat;
  uint16_t p_lvl3_lat;
  uint16_t flush_size;
  uint16_t flush_stride;
  uint8_t duty_offset;
  uint8_t duty_width;
  uint8_t day_alrm;
  uint8_t mon_alrm;
  uint8_t century;
  uint16_t iapc_boot_arch;
  uint8_t reserved1;
  uint32_t flags;
  AcpiGenericAddress reset_reg;
  uint8_t reset_value;
  uint16_t arm_boot_arch;
  uint8_t minor_version;
  uint64_t x_firmware_ctrl;
  uint64_t x_dsdt;
  AcpiGenericAddress x_pm1a_evt_blk;
  AcpiGenericAddress x_pm1b_evt_blk;
  AcpiGenericAddress x_pm1a_cnt_blk;
  AcpiGenericAddress x_pm1b_cnt_blk;
  AcpiGenericAddress x_pm2_cnt_blk;
  AcpiGenericAddress x_pm_tmr_blk;
  AcpiGenericAddress x_gpe0_blk;
  AcpiGenericAddress x_gpe1_blk;
  AcpiGenericAddress sleep_control_reg;
  AcpiGenericAddress sleep_status_reg;
  char hypervisor_id[8];
};
static_assert(sizeof(AcpiFadt) == 276);

/// What stands between the header and the entries of the Multiple APIC Description Table (5.2.12).
struct [[gnu::packed]] AcpiMadtHead {
  uint32_t local_apic_address;
  uint32_t flags;
};

struct [[gnu::packed]] AcpiMadtLocalApic {
  uint8_t type = 0;
  uint8_t length = 8;
  uint8_t processor_uid;
  uint8_t apic_id;
  uint32_t flags;
};
static_assert(sizeof(AcpiMadtLocalApic) == 8);

struct [[gnu::packed]] AcpiMadtIoApic {
  uint8_t type = 1;
  uint8_t length = 12;
  uint8_t io_apic_id;
  uint8_t reserved = 0;
  uint32_t address;
  uint32_t gsi_base;
};
static_assert(sizeof(AcpiMadtIoApic) == 12);

struct [[gnu::packed]] AcpiMadtInterruptOverride {
  uint8_t type = 2;
  uint8_t length = 10;
  uint8_t bus;
  uint8_t source;
  uint32_t gsi;
  uint16_t flags;
};
static_assert(sizeof(AcpiMadtInterruptOverride) == 10);

struct [[gnu::packed]] AcpiMadtLocalX2apic {
  uint8_t type = 9;
  uint8_t length = 16;
  uint16_t reserved = 0;
  uint32_t x2apic_id;
  uint32_t flags;
  uint32_t processor_uid;
};
static_assert(sizeof(AcpiMadtLocalX2apic) == 16);

/// The body of an MCFG with one window (PCI Firmware 3.2, 4.1.2).
struct [[gnu::packed]] AcpiMcfgBody {
  uint64_t reserved;
  uint64_t ecam_base;
  uint16_t segment;
  uint8_t first_bus;
  uint8_t last_bus;
  uint32_t reserved2;
};
static_assert(sizeof(AcpiMcfgBody) == 24);

/// Appends the bytes of a packed structure.
template <class T>
void append_object(TableBytes& out, const T& object) {
  auto bytes = std::as_bytes(std::span(&object, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

/// The value that makes the sum of `bytes` and itself 0 modulo 256.
uint8_t checksum_of(std::span<const std::byte> bytes);

/// Our header (platform.md 1.11) for a table of `body_size` bytes after it; checksum not yet set.
AcpiTableHeader make_table_header(std::string_view signature, uint8_t revision, size_t body_size);
/// A complete table: our header, the body and the checksum.
TableBytes make_table(std::string_view signature, uint8_t revision,
                      std::span<const std::byte> body);
/// Sets the length and the checksum of a table to what its bytes are now.
void seal_table(TableBytes& table);

}  // namespace crosvm::x86_64
