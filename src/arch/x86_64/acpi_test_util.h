#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "arch/x86_64/acpi.h"

/// Finds the ACPI tables as a guest's kernel does, from the RSDP on, checking on the way.
namespace crosvm::x86_64 {

inline constexpr GuestAddress kTestBase{0xE0000};
inline constexpr GuestAddress kTestEnd{0xF0000};

inline GuestMemory make_low_memory() {
  const RamRange range{{0}, 0x100000};
  auto memory = GuestMemory::create(std::span(&range, 1), {});
  EXPECT_TRUE(memory) << memory.error().what();
  return *std::move(memory);
}

/// The `length` bytes from `at` on.
inline TableBytes read_memory(const GuestMemory& memory, uint64_t at, size_t length) {
  TableBytes bytes(length);
  EXPECT_TRUE(memory.read_bytes(GuestAddress{at}, bytes)) << at;
  return bytes;
}

/// A number at a byte offset.
template <class T>
T field(const TableBytes& table, size_t offset) {
  T value{};
  EXPECT_LE(offset + sizeof(T), table.size());
  if (offset + sizeof(T) <= table.size()) std::memcpy(&value, &table[offset], sizeof(T));
  return value;
}

inline std::string text(const TableBytes& table, size_t offset, size_t length) {
  EXPECT_LE(offset + length, table.size());
  return {reinterpret_cast<const char*>(table.data()) + offset, length};
}

struct FoundTable {
  std::string signature;
  uint64_t address = 0;
  TableBytes bytes;
};

inline FoundTable find_table(const GuestMemory& memory, uint64_t address) {
  const TableBytes head = read_memory(memory, address, 8);
  const auto length = field<uint32_t>(head, 4);
  EXPECT_EQ(address % 64, 0u);
  EXPECT_GE(address, kTestBase.value);
  EXPECT_LE(address + length, kTestEnd.value);
  FoundTable found{text(head, 0, 4), address, read_memory(memory, address, length)};
  if (found.signature != "FACS") {
    EXPECT_EQ(checksum_of(found.bytes), 0) << found.signature;
  }
  return found;
}

/// The tables in the order of the XSDT, then the FACS and the DSDT that the FADT points to.
inline std::vector<FoundTable> walk_tables(const GuestMemory& memory) {
  const TableBytes rsdp = read_memory(memory, kTestBase.value, 36);
  EXPECT_EQ(text(rsdp, 0, 8), "RSD PTR ");
  EXPECT_EQ(checksum_of(std::span(rsdp).first(20)), 0);
  EXPECT_EQ(checksum_of(rsdp), 0);
  EXPECT_EQ(text(rsdp, 9, 6), "CROSVM");
  EXPECT_EQ(field<uint8_t>(rsdp, 15), 2);    // revision
  EXPECT_EQ(field<uint32_t>(rsdp, 16), 0u);  // no RSDT
  EXPECT_EQ(field<uint32_t>(rsdp, 20), 36u);

  const FoundTable xsdt = find_table(memory, field<uint64_t>(rsdp, 24));
  EXPECT_EQ(xsdt.signature, "XSDT");
  std::vector<FoundTable> tables;
  for (size_t at = 36; at + 8 <= xsdt.bytes.size(); at += 8)
    tables.push_back(find_table(memory, field<uint64_t>(xsdt.bytes, at)));
  for (const FoundTable& table : std::vector(tables)) {
    if (table.signature != "FACP") continue;
    tables.push_back(find_table(memory, field<uint64_t>(table.bytes, 132)));
    tables.push_back(find_table(memory, field<uint64_t>(table.bytes, 140)));
  }
  return tables;
}

inline std::vector<std::string> signatures_of(const std::vector<FoundTable>& tables) {
  std::vector<std::string> signatures;
  for (const FoundTable& table : tables) signatures.push_back(table.signature);
  return signatures;
}

/// The bytes of the table with this signature; empty when there is none.
inline TableBytes table_of(const std::vector<FoundTable>& tables, const std::string& signature) {
  for (const FoundTable& table : tables)
    if (table.signature == signature) return table.bytes;
  ADD_FAILURE() << "no " << signature;
  return {};
}

/// A machine without PCI.
inline AcpiConfig plain_config(uint32_t vcpus) {
  return {.vcpus = vcpus, .pm_base = 0xC000, .sci_gsi = 5};
}

/// The default windows, one function, one line.
inline AcpiPci small_pci() {
  return {.ecam = {{0xF4000000}, 0x4000000},
          .mmio = {{{0xD0000000}, 0x24000000}, {{0x108000000}, 0x3FEF8000000}},
          .vcfg = {0x100000000},
          .irqs = {{.bus = 0, .device = 1, .function = 0, .pin = 0, .gsi = 9}},
          .functions = {{.device = 1, .function = 0}}};
}

/// All functions of all devices of bus 0, every eighth device a bridge, on four shared lines.
inline AcpiPci crowded_pci() {
  AcpiPci pci = small_pci();
  pci.irqs.clear();
  pci.functions.clear();
  for (uint8_t device = 0; device < 32; ++device) {
    for (uint8_t function = 0; function < 8; ++function) {
      pci.irqs.push_back({.bus = 0,
                          .device = device,
                          .function = function,
                          .pin = static_cast<uint8_t>(function % 4),
                          .gsi = 9u + device % 4});
      AcpiPciFunction described{.device = device, .function = function};
      if (device % 8 == 0 && function == 7) described.secondary_bus = device + 1;
      pci.functions.push_back(described);
    }
  }
  return pci;
}

}  // namespace crosvm::x86_64
