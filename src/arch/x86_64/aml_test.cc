#include "arch/x86_64/aml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace crosvm::x86_64::aml {
namespace {

std::string hex(const Term& term) {
  std::string out;
  for (std::byte b : term) {
    if (!out.empty()) out += ' ';
    for (int shift : {4, 0}) out += "0123456789abcdef"[(std::to_integer<int>(b) >> shift) & 15];
  }
  return out;
}

TEST(Aml, IntegersTakeTheShortestForm) {
  EXPECT_EQ(hex(integer(0)), "00");
  EXPECT_EQ(hex(integer(1)), "01");
  EXPECT_EQ(hex(integer(2)), "0a 02");
  EXPECT_EQ(hex(integer(0xFF)), "0a ff");
  EXPECT_EQ(hex(integer(0x100)), "0b 00 01");
  EXPECT_EQ(hex(integer(0x10000)), "0c 00 00 01 00");
  EXPECT_EQ(hex(integer(0xFFFFFFFF)), "0c ff ff ff ff");
  EXPECT_EQ(hex(integer(0x100000000)), "0e 00 00 00 00 01 00 00 00");
}

TEST(Aml, PathsUseThePrefixOfTheirLength) {
  EXPECT_EQ(hex(path("X")), "58 5f 5f 5f");
  EXPECT_EQ(hex(path("\\_SB_")), "5c 5f 53 42 5f");
  EXPECT_EQ(hex(path("^^AB")), "5e 5e 41 42 5f 5f");
  EXPECT_EQ(hex(path("\\_SB_.PC00")), "5c 2e 5f 53 42 5f 50 43 30 30");
  EXPECT_EQ(hex(path("A.B.C")), "2f 03 41 5f 5f 5f 42 5f 5f 5f 43 5f 5f 5f");
  EXPECT_EQ(hex(path("\\")), "5c 00");
}

/// PkgLength of a buffer of `size` bytes: its bytes, and that it spans what follows.
struct Spanned {
  size_t length_bytes;
  size_t length;
  size_t after_opcode;
};

Spanned package_length_of_buffer(size_t size) {
  Term term = buffer(Term(size));
  size_t lead = std::to_integer<size_t>(term[1]);
  size_t extra = lead >> 6;
  size_t length = extra == 0 ? lead & 0x3F : lead & 0xF;
  for (size_t i = 0; i < extra; ++i) length |= std::to_integer<size_t>(term[2 + i]) << (4 + 8 * i);
  return {extra + 1, length, term.size() - 1};
}

TEST(Aml, PackageLengthGrowsFromOneToFourBytes) {
  // Each pair of sizes stands on both sides of a change in width. A buffer's size term takes 2
  // bytes up to 255, 3 up to 65535 and 5 beyond.
  struct Case {
    size_t size;
    size_t length_bytes;
  };
  for (Case c : {Case{10, 1}, Case{60, 1}, Case{61, 2}, Case{4090, 2}, Case{4091, 3},
                 Case{1048567, 3}, Case{1048568, 4}}) {
    Spanned got = package_length_of_buffer(c.size);
    EXPECT_EQ(got.length_bytes, c.length_bytes) << c.size;
    EXPECT_EQ(got.length, got.after_opcode) << c.size;
  }
}

TEST(Aml, PackagesAbove255ElementsAreOfTheVariableKind) {
  Term small = package(Terms(255, integer(0)));
  EXPECT_EQ(small[0], std::byte{0x12});
  Term large = package(Terms(256, integer(0)));
  EXPECT_EQ(large[0], std::byte{0x13});
  EXPECT_EQ(hex(Term(large.begin() + 3, large.begin() + 6)), "0b 00 01");  // the count
}

TEST(Aml, EisaIdAndUuid) {
  EXPECT_EQ(hex(eisa_id("PNP0A08")), "0c 41 d0 0a 08");
  EXPECT_EQ(hex(eisa_id("PNP0C02")), "0c 41 d0 0c 02");
  EXPECT_EQ(hex(uuid("33DB4D5B-1FF7-401C-9657-7441C03DD766")),
            "11 13 0a 10 5b 4d db 33 f7 1f 1c 40 96 57 74 41 c0 3d d7 66");
}

TEST(Aml, ObjectsAndStatements) {
  EXPECT_EQ(hex(name("_ADR", integer(0))), "08 5f 41 44 52 00");
  EXPECT_EQ(hex(scope("_SB_", {integer(1)})), "10 06 5f 53 42 5f 01");
  EXPECT_EQ(hex(device("D", {})), "5b 82 05 44 5f 5f 5f");
  EXPECT_EQ(hex(method("M", 2, Serialized::kYes, {return_value(arg(1))})),
            "14 08 4d 5f 5f 5f 0a a4 69");
  EXPECT_EQ(hex(if_true(equal(arg(0), arg(6)), {store(integer(1), arg(1))})),
            "a0 07 93 68 6e 70 01 69");
  EXPECT_EQ(hex(otherwise({bit_or(arg(0), integer(4), arg(0))})), "a1 06 7d 68 0a 04 68");
  EXPECT_EQ(hex(bit_and(arg(0), integer(1), arg(1))), "7b 68 01 69");
  EXPECT_EQ(hex(create_dword_field(arg(3), 4, "CDW2")), "8a 6b 0a 04 43 44 57 32");
}

TEST(Aml, ResourceDescriptors) {
  EXPECT_EQ(hex(io_ports(0xCF8, 8)), "47 01 f8 0c f8 0c 01 08");
  EXPECT_EQ(hex(memory32_fixed(0xF4000000, 0x4000000)), "86 09 00 01 00 00 00 f4 00 00 00 04");
  EXPECT_EQ(hex(bus_numbers(0, 63)), "88 0d 00 02 0c 00 00 00 00 00 3f 00 00 00 40 00");
  EXPECT_EQ(hex(memory_window(0xD0000000, 0x10000000)),
            "87 17 00 00 0c 01 00 00 00 00 00 00 00 d0 ff ff ff df 00 00 00 00 00 00 00 10");
  EXPECT_EQ(hex(resource_template({io_ports(0xCF8, 8)})),
            "11 0d 0a 0a 47 01 f8 0c f8 0c 01 08 79 00");
}

TEST(Aml, MemoryWindowsPast4GiBTakeTheWideDescriptor) {
  EXPECT_EQ(memory_window(0xFFFFF000, 0x1000)[0], std::byte{0x87});
  EXPECT_EQ(memory_window(0xFFFFF000, 0x2000)[0], std::byte{0x8A});
  EXPECT_EQ(memory_window(0, 1ull << 32)[0], std::byte{0x8A});  // the length needs 33 bits
  EXPECT_EQ(hex(memory_window(1ull << 32, 1ull << 40)),
            "8a 2b 00 00 0c 01 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00 ff ff ff ff 00 01 "
            "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00");
}

TEST(AmlDeathTest, OurOwnMistakesAbort) {
  EXPECT_DEATH(path("TOOLONG"), "");
  EXPECT_DEATH(path("1ABC"), "");
  EXPECT_DEATH(eisa_id("pnp0a08"), "");
  EXPECT_DEATH(arg(7), "");
  EXPECT_DEATH(memory_window(UINT64_MAX, 2), "");
}

}  // namespace
}  // namespace crosvm::x86_64::aml
