#include "arch/x86_64/smbios.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdio>
#include <fstream>

#include "arch/x86_64/acpi_test_util.h"

namespace crosvm::x86_64 {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr GuestAddress kBase{0xF0000};
constexpr GuestAddress kEnd{0x100000};

struct Structure {
  uint8_t type = 0;
  uint16_t handle = 0;
  TableBytes bytes;  // without the strings
  std::vector<std::string> strings;
};

/// Reads the structures as a guest does, from the entry point in memory.
std::vector<Structure> walk(const GuestMemory& memory) {
  const TableBytes entry = read_memory(memory, kBase.value, 24);
  EXPECT_EQ(text(entry, 0, 5), "_SM3_");
  EXPECT_EQ(checksum_of(entry), 0);
  EXPECT_EQ(text(entry, 6, 6), std::string("\x18\x03\x02\x00\x01\x00", 6));
  EXPECT_EQ(field<uint64_t>(entry, 16), 0xF0018u);
  const TableBytes table =
      read_memory(memory, field<uint64_t>(entry, 16), field<uint32_t>(entry, 12));

  std::vector<Structure> found;
  size_t at = 0;
  while (at + 4 <= table.size()) {
    Structure s{field<uint8_t>(table, at), field<uint16_t>(table, at + 2), {}, {}};
    const size_t length = field<uint8_t>(table, at + 1);
    s.bytes.assign(&table[at], &table[at] + length);
    at += length;
    while (table.at(at) != std::byte{0}) {
      s.strings.emplace_back(reinterpret_cast<const char*>(&table[at]));
      at += s.strings.back().size() + 1;
    }
    at += s.strings.empty() ? 2 : 1;
    found.push_back(std::move(s));
  }
  EXPECT_EQ(at, table.size());
  return found;
}

std::vector<Structure> structures_of(const SmbiosConfig& config) {
  const GuestMemory memory = make_low_memory();
  auto written = write_smbios(memory, kBase, kEnd, config);
  EXPECT_TRUE(written) << written.error().what();
  return walk(memory);
}

TEST(Smbios, DefaultsNameTheMachine) {
  const auto found = structures_of({});
  ASSERT_THAT(found, SizeIs(3));
  EXPECT_EQ(found[0].type, 0);
  EXPECT_THAT(found[0].strings, ElementsAre("crosvm", "0"));
  EXPECT_EQ(field<uint8_t>(found[0].bytes, 9), 0);        // ROM size
  EXPECT_EQ(field<uint64_t>(found[0].bytes, 10), 0x80u);  // PCI supported
  EXPECT_EQ(field<uint8_t>(found[0].bytes, 19), 0x10);    // virtual machine
  EXPECT_EQ(found[1].type, 1);
  EXPECT_THAT(found[1].strings, ElementsAre("ChromiumOS", "crosvm"));
  EXPECT_EQ(field<uint8_t>(found[1].bytes, 7), 0);  // no serial number
  EXPECT_EQ(text(found[1].bytes, 8, 16), std::string(16, '\0'));
  EXPECT_EQ(found[2].type, 127);
  EXPECT_THAT(found[2].strings, IsEmpty());
  for (uint16_t i = 0; i < 3; ++i) EXPECT_EQ(found[i].handle, i + 1);
}

TEST(Smbios, EveryOptionIsSeen) {
  SmbiosConfig config{.bios_vendor = "V",
                      .bios_version = "1.2",
                      .manufacturer = "M",
                      .product_name = "P",
                      .serial_number = "S-7",
                      .uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA,
                               0xBB, 0xCC, 0xDD, 0xEE, 0xFF},
                      .oem_strings = {"one", "two, with a comma"}};
  const auto found = structures_of(config);
  ASSERT_THAT(found, SizeIs(4));
  EXPECT_THAT(found[0].strings, ElementsAre("V", "1.2"));
  EXPECT_THAT(found[1].strings, ElementsAre("M", "P", "S-7"));
  EXPECT_EQ(field<uint8_t>(found[1].bytes, 7), 3);  // serial number: the third string
  EXPECT_EQ(text(found[1].bytes, 8, 16),
            std::string("\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xAA\xBB\xCC\xDD\xEE\xFF", 16));
  EXPECT_EQ(found[2].type, 11);
  EXPECT_EQ(field<uint8_t>(found[2].bytes, 4), 2);
  EXPECT_THAT(found[2].strings, ElementsAre("one", "two, with a comma"));
}

TEST(Smbios, RomSizeCountsBlocksOf64KiB) {
  const auto rom_size = [](uint64_t bios_size) {
    return field<uint8_t>(structures_of({.bios_size = bios_size})[0].bytes, 9);
  };
  EXPECT_EQ(rom_size(0x8000), 0);
  EXPECT_EQ(rom_size(0x10000), 0);
  EXPECT_EQ(rom_size(0x200000), 31);
  EXPECT_EQ(rom_size(0x2000000), 0xFF);
  const auto large = structures_of({.bios_size = 0x2000000});
  EXPECT_EQ(field<uint16_t>(large[0].bytes, 24), 32);  // MiB
}

TEST(Smbios, AnEmptyStringIsNotSpecified) {
  const auto found = structures_of({.bios_vendor = "", .manufacturer = "", .product_name = ""});
  EXPECT_THAT(found[0].strings, ElementsAre("0"));
  EXPECT_EQ(field<uint8_t>(found[0].bytes, 4), 0);  // vendor
  EXPECT_EQ(field<uint8_t>(found[0].bytes, 5), 1);  // version
  EXPECT_THAT(found[1].strings, IsEmpty());
}

TEST(Smbios, HoldsTheMostStringsThereCanBe) {
  SmbiosConfig config;
  config.oem_strings.assign(255, "x");
  EXPECT_THAT(structures_of(config)[2].strings, SizeIs(255));
}

std::string error_of(const SmbiosConfig& config) {
  auto written = write_smbios(make_low_memory(), kBase, kEnd, config);
  EXPECT_FALSE(written);
  return written ? "" : written.error().what();
}

TEST(Smbios, WhatTheFormatCannotHoldIsAnError) {
  EXPECT_THAT(error_of({.product_name = std::string("a\0b", 3)}), HasSubstr("product-name"));
  EXPECT_THAT(error_of({.oem_strings = {"a", std::string("\0", 1)}}), HasSubstr("OEM string 2"));
  EXPECT_THAT(error_of({.oem_strings = {""}}), HasSubstr("OEM string 1 is empty"));
  EXPECT_THAT(error_of({.oem_strings = std::vector<std::string>(256, "x")}), HasSubstr("256"));
  EXPECT_THAT(error_of({.serial_number = std::string(0x10000, 's')}), HasSubstr("65536"));
}

TEST(Smbios, DmidecodeUnderstandsIt) {
  if (std::system("command -v dmidecode >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "dmidecode is missing: install the package dmidecode";
  auto bytes = build_smbios(GuestAddress{0}, {.serial_number = "S-7", .oem_strings = {"one"}});
  ASSERT_TRUE(bytes);
  const std::string path = testing::TempDir() + "/smbios.bin";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes->data()),
             static_cast<std::streamsize>(bytes->size()));
  std::FILE* pipe = ::popen(("dmidecode --from-dump " + path + " 2>&1").c_str(), "re");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  char chunk[4096];
  while (size_t got = std::fread(chunk, 1, sizeof(chunk), pipe)) output.append(chunk, got);
  EXPECT_EQ(::pclose(pipe), 0);
  for (const char* line :
       {"SMBIOS 3.2.0 present", "Vendor: crosvm", "PCI is supported", "System is a virtual machine",
        "Manufacturer: ChromiumOS", "Serial Number: S-7", "String 1: one", "End Of Table"})
    EXPECT_THAT(output, HasSubstr(line));
  for (const char* complaint : {"TRUNCATED", "BAD INDEX", "OUT OF SPEC", "Invalid", "Wrong"})
    EXPECT_THAT(output, testing::Not(HasSubstr(complaint)));
}

}  // namespace
}  // namespace crosvm::x86_64
