#include <algorithm>
#include <cstring>

#include "arch/x86_64/acpi.h"

namespace crosvm::x86_64 {
namespace {

// Fixed feature flags (ACPI 6.3, table 5-35).
constexpr uint32_t kResetRegSup = 1 << 10;
constexpr uint32_t kLowPowerS0IdleCapable = 1 << 21;

// The power-management block (platform.md 1.12), from its first port on.
constexpr uint32_t kPm1EventOffset = 0;
constexpr uint32_t kPm1ControlOffset = 4;
constexpr uint32_t kGpe0Offset = 8;
constexpr uint8_t kPm1EventLength = 4;
constexpr uint8_t kPm1ControlLength = 2;
constexpr uint8_t kGpe0Length = 64;

// The reset port (platform.md 1.3).
constexpr uint16_t kResetPort = 0xCF9;
constexpr uint8_t kResetValue = 6;

// CMOS registers.
constexpr uint8_t kCmosCentury = 0x32;
constexpr uint8_t kCmosDayAlarm = 0x33;
constexpr uint8_t kCmosMonthAlarm = 0x34;

/// The register blocks: ours alone exist, and only in their 32-bit fields. The 64-bit ones come
/// from a user's table, whose addresses belong to another machine.
void set_register_blocks(AcpiFadt& fadt, uint16_t pm_base) {
  fadt.smi_cmd = 0;  // no SMM: the machine is in ACPI mode from the start
  fadt.pm1a_evt_blk = pm_base + kPm1EventOffset;
  fadt.pm1b_evt_blk = 0;
  fadt.pm1a_cnt_blk = pm_base + kPm1ControlOffset;
  fadt.pm1b_cnt_blk = 0;
  fadt.pm2_cnt_blk = 0;
  fadt.pm_tmr_blk = 0;
  fadt.gpe0_blk = pm_base + kGpe0Offset;
  fadt.gpe1_blk = 0;
  fadt.pm1_evt_len = kPm1EventLength;
  fadt.pm1_cnt_len = kPm1ControlLength;
  fadt.pm2_cnt_len = 0;
  fadt.pm_tmr_len = 0;
  fadt.gpe0_blk_len = kGpe0Length;
  fadt.gpe1_blk_len = 0;
  fadt.gpe1_base = 0;
  for (AcpiGenericAddress* block :
       {&fadt.x_pm1a_evt_blk, &fadt.x_pm1b_evt_blk, &fadt.x_pm1a_cnt_blk, &fadt.x_pm1b_cnt_blk,
        &fadt.x_pm2_cnt_blk, &fadt.x_pm_tmr_blk, &fadt.x_gpe0_blk, &fadt.x_gpe1_blk,
        &fadt.sleep_control_reg, &fadt.sleep_status_reg})
    *block = {};
}

/// Every field that describes the virtual machine itself, in our table and in a user's.
void set_virtualized_fields(AcpiFadt& fadt, const AcpiConfig& config) {
  fadt.sci_int = config.sci_gsi;
  fadt.flags = kResetRegSup | (config.low_power_s0 ? kLowPowerS0IdleCapable : 0);
  fadt.reset_reg = {
      .space = 1, .bit_width = 8, .bit_offset = 0, .access_size = 1, .address = kResetPort};
  fadt.reset_value = kResetValue;
  fadt.day_alrm = kCmosDayAlarm;
  fadt.mon_alrm = kCmosMonthAlarm;
  fadt.century = kCmosCentury;
  std::memcpy(fadt.hypervisor_id, "CROSVM\0", sizeof(fadt.hypervisor_id));
  set_register_blocks(fadt, config.pm_base);
}

}  // namespace

TableBytes build_fadt(const AcpiConfig& config, GuestAddress facs, GuestAddress dsdt) {
  AcpiFadt fadt = {};
  TableBytes table(sizeof(fadt));
  if (config.user.fadt) {
    // Shorter than our structure for an older revision, longer for a newer one.
    table = config.user.fadt->bytes;
    std::memcpy(&fadt, table.data(), std::min(sizeof(fadt), table.size()));
  } else {
    fadt.header = make_table_header("FACP", 6, sizeof(fadt) - sizeof(fadt.header));
    fadt.minor_version = 3;
  }
  set_virtualized_fields(fadt, config);
  fadt.firmware_ctrl = 0;  // the 64-bit fields alone: both set would have to agree
  fadt.dsdt = 0;
  fadt.x_firmware_ctrl = facs.value;
  fadt.x_dsdt = dsdt.value;
  std::memcpy(table.data(), &fadt, std::min(sizeof(fadt), table.size()));
  seal_table(table);
  return table;
}

}  // namespace crosvm::x86_64
