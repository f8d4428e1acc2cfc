#include "arch/x86_64/acpi_user.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "arch/x86_64/acpi_test_util.h"

namespace crosvm::x86_64 {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Our tables with these of the user among them.
std::vector<FoundTable> tables_with(std::vector<UserAcpiTable> user) {
  AcpiConfig config = plain_config(1);
  auto sorted = sort_user_tables(std::move(user));
  EXPECT_TRUE(sorted) << sorted.error().what();
  if (sorted) config.user = *std::move(sorted);
  const GuestMemory memory = make_low_memory();
  EXPECT_TRUE(write_acpi(memory, kTestBase, kTestEnd, config));
  return walk_tables(memory);
}

std::string error_of(std::vector<UserAcpiTable> user) {
  auto sorted = sort_user_tables(std::move(user));
  EXPECT_FALSE(sorted);
  return sorted ? "" : sorted.error().what();
}

TableBytes some_ssdt(uint8_t content) {
  return make_table("SSDT", 2, TableBytes(3, std::byte{content}));
}

/// A FADT of a physical machine: registers, flags and pointers of its own.
TableBytes host_fadt(size_t size) {
  TableBytes fadt = make_table("FACP", 6, TableBytes(size - 36, std::byte{0x77}));
  fadt[46] = std::byte{9};  // SCI
  fadt[47] = std::byte{0};
  seal_table(fadt);
  return fadt;
}

TableBytes host_madt(std::vector<std::vector<int>> entries) {
  TableBytes body(8, std::byte{0x55});
  for (const auto& entry : entries)
    for (int b : entry) body.push_back(static_cast<std::byte>(b));
  return make_table("APIC", 4, body);
}

TEST(UserAcpiTables, OthersComeFirstInTheXsdtAndUnchanged) {
  const auto tables = tables_with({{"a.aml", some_ssdt(1)}, {"b.aml", some_ssdt(2)}});
  EXPECT_THAT(signatures_of(tables), ElementsAre("SSDT", "SSDT", "FACP", "APIC", "FACS", "DSDT"));
  EXPECT_EQ(tables[0].bytes, some_ssdt(1));
  EXPECT_EQ(tables[1].bytes, some_ssdt(2));
}

TEST(UserAcpiTables, ADsdtReplacesOurs) {
  const TableBytes dsdt = make_table("DSDT", 2, TableBytes(5, std::byte{0xA3}));
  const auto tables = tables_with({{"dsdt.aml", dsdt}});
  EXPECT_THAT(signatures_of(tables), ElementsAre("FACP", "APIC", "FACS", "DSDT"));
  EXPECT_EQ(tables[3].bytes, dsdt);
}

TEST(UserAcpiTables, AFadtKeepsWhatIsNotVirtual) {
  auto sorted = sort_user_tables({{"facp.bin", host_fadt(276)}});
  ASSERT_TRUE(sorted);
  EXPECT_EQ(sorted->sci_gsi(), 9);

  const TableBytes fadt = table_of(tables_with({{"facp.bin", host_fadt(276)}}), "FACP");
  ASSERT_EQ(fadt.size(), 276u);
  EXPECT_EQ(field<uint8_t>(fadt, 45), 0x77);      // preferred profile: kept
  EXPECT_EQ(field<uint16_t>(fadt, 109), 0x7777);  // boot architecture: kept
  EXPECT_EQ(field<uint32_t>(fadt, 36), 0u);       // its FACS is not in this machine
  EXPECT_EQ(field<uint32_t>(fadt, 48), 0u);       // nor its SMI port
  EXPECT_EQ(field<uint32_t>(fadt, 56), 0xC000u);  // PM1a
  EXPECT_EQ(field<uint32_t>(fadt, 60), 0u);       // PM1b
  EXPECT_EQ(field<uint32_t>(fadt, 112), 0x400u);  // flags
  EXPECT_EQ(field<uint64_t>(fadt, 120), 0xCF9u);  // reset port
  EXPECT_EQ(text(fadt, 148, 120), std::string(120, '\0'));
  EXPECT_EQ(text(fadt, 268, 6), "CROSVM");
}

TEST(UserAcpiTables, FadtsOfOtherRevisionsKeepTheirLength) {
  for (size_t size : {244u, 268u, 300u}) {
    const TableBytes fadt = table_of(tables_with({{"facp.bin", host_fadt(size)}}), "FACP");
    ASSERT_EQ(fadt.size(), size);
    EXPECT_EQ(text(fadt, 148, 96), std::string(96, '\0'));
    EXPECT_EQ(field<uint32_t>(fadt, 56), 0xC000u);
    if (size == 300) {
      EXPECT_EQ(field<uint32_t>(fadt, 296), 0x77777777u);
    }
  }
}

TEST(UserAcpiTables, OnlyTheOverridesOfAMadtAreTaken) {
  const TableBytes user =
      host_madt({{0, 8, 7, 7, 1, 0, 0, 0}, {2, 10, 0, 9, 9, 0, 0, 0, 13, 0}, {4, 6, 255, 0, 0, 1}});
  const TableBytes ours = table_of(tables_with({}), "APIC");
  const TableBytes merged = table_of(tables_with({{"apic.bin", user}}), "APIC");
  ASSERT_EQ(merged.size(), ours.size() + 10);
  EXPECT_EQ(text(merged, 36, ours.size() - 36), text(ours, 36, ours.size() - 36));
  EXPECT_EQ(text(merged, ours.size(), 10), std::string("\x02\x0A\x00\x09\x09\0\0\0\x0D\0", 10));
}

TEST(UserAcpiTables, BrokenFilesAreNamedWithTheirFault) {
  EXPECT_THAT(error_of({{"empty", {}}}), HasSubstr("ACPI table empty: the file has 0 bytes"));
  EXPECT_THAT(error_of({{"short", TableBytes(35)}}), HasSubstr("35 bytes"));

  TableBytes cut = some_ssdt(1);
  cut.pop_back();
  EXPECT_THAT(
      error_of({{"ok", some_ssdt(1)}, {"cut", cut}}),
      HasSubstr("ACPI table cut: the table says that it has 39 bytes, but the file has 38"));

  TableBytes huge = some_ssdt(1);
  std::memset(&huge[4], 0xFF, 4);
  EXPECT_THAT(error_of({{"huge", huge}}), HasSubstr("4294967295 bytes"));

  TableBytes flipped = some_ssdt(1);
  flipped.back() ^= std::byte{1};
  EXPECT_THAT(error_of({{"flipped", flipped}}), HasSubstr("ACPI table flipped: the checksum"));

  EXPECT_THAT(error_of({{"old", host_fadt(116)}}), HasSubstr("the FADT has 116 bytes"));
  EXPECT_THAT(error_of({{"tiny", make_table("APIC", 1, TableBytes(3))}}),
              HasSubstr("the MADT has 39 bytes"));
  EXPECT_THAT(error_of({{"a", host_fadt(276)}, {"b", host_fadt(276)}}),
              HasSubstr("ACPI table b: a is already the FACP table"));
}

TEST(UserAcpiTables, MadtEntriesThatDoNotAddUpAreRefused) {
  const std::vector<std::vector<int>> broken = {
      {2, 0},                       // would never advance
      {1, 1},                       // shorter than its own head
      {0, 8, 0},                    // past the end
      {5},                          // half a head
      {2, 9, 0, 9, 9, 0, 0, 0, 0},  // an override that is none
  };
  for (const auto& entry : broken) {
    EXPECT_THAT(error_of({{"m", host_madt({entry})}}), HasSubstr("wrong length"));
    EXPECT_THAT(error_of({{"m", host_madt({{4, 6, 255, 0, 0, 1}, entry})}}),
                HasSubstr("at byte 50"));
  }
}

TEST(UserAcpiTables, RandomMadtsNeverReadPastTheirEnd) {
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    TableBytes body(8 + random() % 40);
    for (std::byte& b : body) b = static_cast<std::byte>(random() % 12);
    auto overrides = interrupt_overrides_of(make_table("APIC", 5, body));
    if (!overrides) continue;
    for (const TableBytes& entry : *overrides) EXPECT_EQ(entry.size(), 10u);
  }
}

}  // namespace
}  // namespace crosvm::x86_64
