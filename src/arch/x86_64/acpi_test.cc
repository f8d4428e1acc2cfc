#include "arch/x86_64/acpi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "arch/x86_64/acpi_test_util.h"

namespace crosvm::x86_64 {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<FoundTable> tables_of(const AcpiConfig& config) {
  const GuestMemory memory = make_low_memory();
  auto written = write_acpi(memory, kTestBase, kTestEnd, config);
  EXPECT_TRUE(written) << written.error().what();
  return walk_tables(memory);
}

TEST(Acpi, AGuestFindsEveryTableFromTheRsdp) {
  AcpiConfig config = plain_config(2);
  EXPECT_THAT(signatures_of(tables_of(config)), ElementsAre("FACP", "APIC", "FACS", "DSDT"));
  config.pci = small_pci();
  EXPECT_THAT(signatures_of(tables_of(config)),
              ElementsAre("FACP", "APIC", "MCFG", "FACS", "DSDT"));
}

TEST(Acpi, TheFacsFollowsTheRsdp) {
  const auto tables = tables_of(plain_config(1));
  ASSERT_EQ(tables[2].signature, "FACS");
  EXPECT_EQ(tables[2].address, kTestBase.value + 64);
  EXPECT_EQ(tables[2].bytes.size(), 64u);
  EXPECT_EQ(field<uint8_t>(tables[2].bytes, 32), 1);  // version
}

TEST(Acpi, TablesCarryOurName) {
  AcpiConfig config = plain_config(1);
  config.pci = small_pci();
  const std::map<std::string, uint8_t> revisions = {
      {"FACP", 6}, {"APIC", 5}, {"MCFG", 1}, {"DSDT", 6}};
  for (const FoundTable& table : tables_of(config)) {
    if (table.signature == "FACS") continue;
    SCOPED_TRACE(table.signature);
    EXPECT_EQ(field<uint8_t>(table.bytes, 8), revisions.at(table.signature));
    EXPECT_EQ(text(table.bytes, 10, 6), "CROSVM");
    EXPECT_EQ(text(table.bytes, 16, 8), "CROSVMDT");
    EXPECT_EQ(field<uint32_t>(table.bytes, 24), 1u);
    EXPECT_EQ(text(table.bytes, 28, 4), "CROS");
    EXPECT_EQ(field<uint32_t>(table.bytes, 32), 0u);
  }
}

TEST(Acpi, TheFadtDescribesThePowerManagementBlock) {
  const TableBytes fadt = table_of(tables_of(plain_config(1)), "FACP");
  ASSERT_EQ(fadt.size(), 276u);
  EXPECT_EQ(field<uint8_t>(fadt, 131), 3);        // minor version
  EXPECT_EQ(field<uint32_t>(fadt, 36), 0u);       // 32-bit FACS
  EXPECT_EQ(field<uint32_t>(fadt, 40), 0u);       // 32-bit DSDT
  EXPECT_EQ(field<uint16_t>(fadt, 46), 5);        // SCI
  EXPECT_EQ(field<uint32_t>(fadt, 48), 0u);       // SMI_CMD
  EXPECT_EQ(field<uint32_t>(fadt, 56), 0xC000u);  // PM1a event
  EXPECT_EQ(field<uint32_t>(fadt, 64), 0xC004u);  // PM1a control
  EXPECT_EQ(field<uint32_t>(fadt, 76), 0u);       // PM timer
  EXPECT_EQ(field<uint32_t>(fadt, 80), 0xC008u);  // GPE0
  EXPECT_EQ(text(fadt, 88, 6), std::string("\x04\x02\x00\x00\x40\x00", 6));
  EXPECT_EQ(text(fadt, 106, 3), "\x33\x34\x32");  // day alarm, month alarm, century
  EXPECT_EQ(field<uint32_t>(fadt, 112), 0x400u);  // RESET_REG_SUP
  EXPECT_EQ(text(fadt, 116, 4), std::string("\x01\x08\x00\x01", 4));
  EXPECT_EQ(field<uint64_t>(fadt, 120), 0xCF9u);
  EXPECT_EQ(field<uint8_t>(fadt, 128), 6);  // reset value
  EXPECT_EQ(text(fadt, 148, 120), std::string(120, '\0'));
  EXPECT_EQ(text(fadt, 268, 8), std::string("CROSVM\0\0", 8));
}

TEST(Acpi, ForcedS2idleIsAFlagOfTheFadt) {
  AcpiConfig config = plain_config(1);
  config.low_power_s0 = true;
  EXPECT_EQ(field<uint32_t>(table_of(tables_of(config), "FACP"), 112), 0x200400u);
}

/// Type, then the rest of the entry, of each entry of a MADT.
std::vector<TableBytes> madt_entries(const TableBytes& madt) {
  std::vector<TableBytes> entries;
  for (size_t at = 44; at < madt.size();) {
    const size_t length = field<uint8_t>(madt, at + 1);
    if (length < 2 || at + length > madt.size()) {
      ADD_FAILURE() << "entry at " << at;
      break;
    }
    entries.emplace_back(&madt[at], &madt[at] + length);
    at += length;
  }
  return entries;
}

TEST(Acpi, TheMadtNamesEveryVcpuAndTheIoApic) {
  const TableBytes madt = table_of(tables_of(plain_config(3)), "APIC");
  EXPECT_EQ(field<uint32_t>(madt, 36), 0xFEE00000u);
  EXPECT_EQ(field<uint32_t>(madt, 40), 1u);  // PCAT_COMPAT
  const auto entries = madt_entries(madt);
  ASSERT_EQ(entries.size(), 4u);
  for (uint8_t vcpu = 0; vcpu < 3; ++vcpu) {
    const char expected[] = {0, 8, static_cast<char>(vcpu), static_cast<char>(vcpu), 1, 0, 0, 0};
    EXPECT_EQ(text(entries[vcpu], 0, 8), std::string(expected, 8));
  }
  EXPECT_EQ(field<uint16_t>(entries[3], 0), 0x0C01);  // IOAPIC, 12 bytes
  EXPECT_EQ(field<uint8_t>(entries[3], 2), 0);        // id
  EXPECT_EQ(field<uint32_t>(entries[3], 4), 0xFEC00000u);
  EXPECT_EQ(field<uint32_t>(entries[3], 8), 0u);  // first GSI
}

TEST(Acpi, VcpusFromApicId255OnAreX2apics) {
  const auto entries = madt_entries(table_of(tables_of(plain_config(300)), "APIC"));
  ASSERT_EQ(entries.size(), 301u);
  EXPECT_EQ(field<uint16_t>(entries[254], 0), 0x0800);
  EXPECT_EQ(field<uint8_t>(entries[254], 3), 254);
  for (uint32_t vcpu : {255u, 299u}) {
    EXPECT_EQ(field<uint16_t>(entries[vcpu], 0), 0x1009);
    EXPECT_EQ(field<uint32_t>(entries[vcpu], 4), vcpu);       // APIC id
    EXPECT_EQ(field<uint32_t>(entries[vcpu], 8), 1u);         // enabled
    EXPECT_EQ(field<uint32_t>(entries[vcpu], 12), vcpu + 1);  // processor
  }
}

TEST(Acpi, HostTopologyGivesItsOwnApicIds) {
  AcpiConfig config = plain_config(2);
  config.apic_ids = {0, 300};
  const auto entries = madt_entries(table_of(tables_of(config), "APIC"));
  EXPECT_EQ(field<uint16_t>(entries[0], 0), 0x0800);
  EXPECT_EQ(field<uint16_t>(entries[1], 0), 0x1009);
  EXPECT_EQ(field<uint32_t>(entries[1], 4), 300u);
  EXPECT_EQ(field<uint32_t>(entries[1], 12), 2u);
}

TEST(Acpi, EachPciLineIsOverriddenOnce) {
  AcpiConfig config = plain_config(1);
  config.pci = crowded_pci();
  const auto entries = madt_entries(table_of(tables_of(config), "APIC"));
  ASSERT_EQ(entries.size(), 6u);
  for (uint32_t i = 0; i < 4; ++i) {
    const TableBytes& entry = entries[2 + i];
    EXPECT_EQ(field<uint16_t>(entry, 0), 0x0A02);
    EXPECT_EQ(field<uint8_t>(entry, 2), 0);       // ISA
    EXPECT_EQ(field<uint8_t>(entry, 3), 9 + i);   // source
    EXPECT_EQ(field<uint32_t>(entry, 4), 9 + i);  // GSI
    EXPECT_EQ(field<uint16_t>(entry, 8), 0xF);    // active low, level
  }
}

TEST(Acpi, TheMcfgCoversTheEcamWindow) {
  AcpiConfig config = plain_config(1);
  config.pci = small_pci();
  config.pci->ecam = {{0xE0000000}, 0x10000000};
  const TableBytes mcfg = table_of(tables_of(config), "MCFG");
  ASSERT_EQ(mcfg.size(), 60u);
  EXPECT_EQ(field<uint64_t>(mcfg, 44), 0xE0000000u);
  EXPECT_EQ(field<uint16_t>(mcfg, 52), 0);   // segment
  EXPECT_EQ(field<uint8_t>(mcfg, 54), 0);    // first bus
  EXPECT_EQ(field<uint8_t>(mcfg, 55), 255);  // last bus
}

TEST(Acpi, WithoutPciTheDsdtHasTheSleepStatesAlone) {
  const TableBytes dsdt = table_of(tables_of(plain_config(1)), "DSDT");
  const std::string expected(
      "\x08_S1_\x12\x06\x04\x01\x01\x00\x00\x08_S5_\x12\x06\x04\x00\x00\x00\x00", 24);
  EXPECT_EQ(text(dsdt, 36, dsdt.size() - 36), expected);
}

TEST(Acpi, TablesNeverReachIntoWhatFollowsTheirArea) {
  const GuestMemory memory = make_low_memory();
  AcpiConfig config = plain_config(5000);
  auto written = write_acpi(memory, kTestBase, kTestEnd, config);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), std::errc::no_buffer_space);
  EXPECT_THAT(written.error().what(), HasSubstr("vCPUs"));
  EXPECT_EQ(field<uint64_t>(read_memory(memory, kTestBase.value, 8), 0), 0u);  // nothing written

  config = plain_config(1);
  config.user.appended.push_back({"big.aml", make_table("SSDT", 2, TableBytes(0x10000))});
  written = write_acpi(memory, kTestBase, kTestEnd, config);
  ASSERT_FALSE(written);
  EXPECT_THAT(written.error().what(), HasSubstr("big.aml (65572 bytes)"));
}

TEST(Acpi, MemoryThatEndsBelowTheTablesIsAnError) {
  const RamRange range{{0}, 0xA0000};
  auto memory = GuestMemory::create(std::span(&range, 1), {});
  ASSERT_TRUE(memory);
  auto written = write_acpi(*memory, kTestBase, kTestEnd, plain_config(1));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), std::errc::bad_address);
}

}  // namespace
}  // namespace crosvm::x86_64
