#include "arch/x86_64/mptable.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "arch/x86_64/acpi_test_util.h"

namespace crosvm::x86_64 {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr GuestAddress kBase{0x9E800};
constexpr GuestAddress kPointer{0x9FFF0};

/// The entries by type.
using Entries = std::map<uint8_t, std::vector<TableBytes>>;

/// Reads the table as a guest does, from the last 16 bytes of the first 640 KiB.
Entries walk(const GuestMemory& memory) {
  const TableBytes pointer = read_memory(memory, kPointer.value, 16);
  EXPECT_EQ(text(pointer, 0, 4), "_MP_");
  EXPECT_EQ(checksum_of(pointer), 0);
  EXPECT_EQ(field<uint8_t>(pointer, 8), 1);  // one paragraph
  EXPECT_EQ(field<uint8_t>(pointer, 9), 4);  // 1.4
  EXPECT_EQ(text(pointer, 11, 5), std::string(5, '\0'));

  const uint32_t at = field<uint32_t>(pointer, 4);
  EXPECT_EQ(at, kBase.value);
  const TableBytes table = read_memory(memory, at, field<uint16_t>(read_memory(memory, at, 8), 4));
  EXPECT_EQ(checksum_of(table), 0);
  EXPECT_EQ(text(table, 0, 4), "PCMP");
  EXPECT_EQ(field<uint8_t>(table, 6), 4);
  EXPECT_EQ(text(table, 8, 20), "CROSVM  000000000000");
  EXPECT_EQ(field<uint32_t>(table, 36), 0xFEE00000u);

  Entries entries;
  size_t offset = 44;
  const int count = field<uint16_t>(table, 34);
  for (int i = 0; i < count; ++i) {
    const uint8_t type = field<uint8_t>(table, offset);
    const size_t length = type == 0 ? 20 : 8;
    entries[type].emplace_back(&table[offset], &table[offset] + length);
    offset += length;
  }
  EXPECT_EQ(offset, table.size());
  return entries;
}

Entries entries_of(const MptableConfig& config) {
  const GuestMemory memory = make_low_memory();
  auto written = write_mptable(memory, kBase, kPointer, config);
  EXPECT_TRUE(written) << written.error().what();
  return walk(memory);
}

/// "BUS:IRQ->PIN" of each I/O interrupt.
std::vector<std::string> routes_of(const Entries& entries) {
  std::vector<std::string> routes;
  for (const TableBytes& e : entries.at(3)) {
    std::string route = std::to_string(field<uint8_t>(e, 4)) + ":" +
                        std::to_string(field<uint8_t>(e, 5)) + "->" +
                        std::to_string(field<uint8_t>(e, 7));
    if (field<uint16_t>(e, 2) == 0x0D) route += " high level";
    routes.push_back(route);
  }
  return routes;
}

TEST(Mptable, NamesEveryProcessorAndTheIoApic) {
  const Entries entries = entries_of({.vcpus = 3, .sci_gsi = 5});
  ASSERT_THAT(entries.at(0), SizeIs(3));
  for (uint8_t cpu = 0; cpu < 3; ++cpu) {
    const TableBytes& entry = entries.at(0)[cpu];
    EXPECT_EQ(field<uint8_t>(entry, 1), cpu);
    EXPECT_EQ(field<uint8_t>(entry, 2), 0x14);
    EXPECT_EQ(field<uint8_t>(entry, 3), cpu == 0 ? 3 : 1);  // enabled; the first boots
    EXPECT_EQ(field<uint32_t>(entry, 4), 0x600u);
    EXPECT_EQ(field<uint32_t>(entry, 8), 0x201u);
  }
  ASSERT_THAT(entries.at(2), SizeIs(1));
  EXPECT_EQ(field<uint8_t>(entries.at(2)[0], 1), 4);
  EXPECT_EQ(field<uint8_t>(entries.at(2)[0], 3), 1);
  EXPECT_EQ(field<uint32_t>(entries.at(2)[0], 4), 0xFEC00000u);
}

TEST(Mptable, WithoutPciThereIsTheIsaBusAlone) {
  const Entries entries = entries_of({.vcpus = 1, .sci_gsi = 5});
  ASSERT_THAT(entries.at(1), SizeIs(1));
  EXPECT_EQ(text(entries.at(1)[0], 2, 6), "ISA   ");
  EXPECT_THAT(routes_of(entries),
              ElementsAre("0:0->0", "0:1->1", "0:2->2", "0:3->3", "0:4->4", "0:8->8",
                          "0:5->5 high level", "0:6->6", "0:7->7", "0:9->9", "0:10->10", "0:11->11",
                          "0:12->12", "0:13->13", "0:14->14", "0:15->15"));
}

TEST(Mptable, PciLinesFollowTheirBusDeviceAndPin) {
  const Entries entries = entries_of({.vcpus = 2,
                                      .sci_gsi = 5,
                                      .last_pci_bus = 1,
                                      .pci_irqs = {{0, 1, 0, 0, 9},
                                                   {0, 1, 4, 0, 9},  // shares the pin
                                                   {0, 2, 3, 3, 10},
                                                   {1, 0, 0, 0, 12}}});
  ASSERT_THAT(entries.at(1), SizeIs(3));
  EXPECT_EQ(text(entries.at(1)[1], 2, 6), "PCI   ");
  EXPECT_EQ(field<uint8_t>(entries.at(1)[2], 1), 2);
  EXPECT_EQ(text(entries.at(1)[2], 2, 6), "ISA   ");
  EXPECT_THAT(routes_of(entries), ElementsAre("2:0->0", "2:1->1", "2:2->2", "2:3->3", "2:4->4",
                                              "2:8->8", "2:5->5 high level", "0:4->9", "0:11->10",
                                              "1:0->12", "2:13->13", "2:14->14", "2:15->15"));
  for (const TableBytes& entry : entries.at(3)) EXPECT_EQ(field<uint8_t>(entry, 6), 3);  // IOAPIC
}

TEST(Mptable, LocalPinsTakeExtIntAndNmi) {
  const Entries entries = entries_of({.vcpus = 1, .sci_gsi = 5, .last_pci_bus = 63});
  ASSERT_THAT(entries.at(4), SizeIs(2));
  EXPECT_EQ(text(entries.at(4)[0], 0, 8), std::string("\x04\x03\0\0\x40\0\0\0", 8));
  EXPECT_EQ(text(entries.at(4)[1], 0, 8), std::string("\x04\x01\0\0\x40\0\xFF\x01", 8));
}

TEST(Mptable, TheIsaBusHasAnIdWithAnyEcam) {
  const Entries entries = entries_of({.vcpus = 1, .sci_gsi = 5, .last_pci_bus = 255});
  ASSERT_THAT(entries.at(1), SizeIs(256));
  EXPECT_EQ(field<uint8_t>(entries.at(1)[255], 1), 255);
  EXPECT_EQ(text(entries.at(1)[255], 2, 6), "ISA   ");
}

TEST(Mptable, TheMostVcpusFitBesideTheDefaultBuses) {
  const Entries entries = entries_of({.vcpus = 254, .sci_gsi = 5, .last_pci_bus = 63});
  EXPECT_THAT(entries.at(0), SizeIs(254));
  EXPECT_EQ(field<uint8_t>(entries.at(2)[0], 1), 255);
}

TEST(Mptable, WhatDoesNotFitIsAnError) {
  const GuestMemory memory = make_low_memory();
  auto written = write_mptable(memory, kBase, kPointer, {.vcpus = 255, .sci_gsi = 5});
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), std::errc::invalid_argument);
  EXPECT_THAT(written.error().what(), HasSubstr("255 vCPUs"));

  written =
      write_mptable(memory, kBase, kPointer, {.vcpus = 254, .sci_gsi = 5, .last_pci_bus = 255});
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), std::errc::no_buffer_space);
  EXPECT_EQ(field<uint64_t>(read_memory(memory, kBase.value, 8), 0), 0u);  // nothing written
}

}  // namespace
}  // namespace crosvm::x86_64
