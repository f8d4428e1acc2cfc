#include "arch/x86_64/memory_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm::x86_64 {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

E820Entry ram(uint64_t start, uint64_t end) {
  return {{GuestAddress{start}, end - start}, E820Type::kRam};
}
E820Entry reserved(uint64_t start, uint64_t end) {
  return {{GuestAddress{start}, end - start}, E820Type::kReserved};
}

MemoryLayout plan(uint64_t mib, uint32_t bits = 46) {
  auto layout = plan_memory({.ram_bytes = mib * kMiB, .host_physical_bits = bits});
  EXPECT_TRUE(layout.has_value()) << layout.error().what();
  return *layout;
}

TEST(MemoryMap, DefaultSizeStaysBelowTheLowWindow) {
  MemoryLayout layout = plan(256);
  ASSERT_EQ(layout.ram.size(), 1u);
  EXPECT_EQ(layout.ram[0].size, 256 * kMiB);
  EXPECT_THAT(layout.e820,
              ElementsAre(ram(0, 0xA0000), reserved(0xA0000, 0x100000), ram(0x100000, 0x10000000),
                          reserved(0xF4000000, 0xF8000000), reserved(0x100000000, 0x108000000),
                          reserved(0xFEFFC000, 0xFF000000)));
}

TEST(MemoryMap, RamUpToTheLowWindowHasNoHighPart) {
  MemoryLayout layout = plan(3328);  // 3.25 GiB: exactly to 0xD0000000
  ASSERT_EQ(layout.ram.size(), 1u);
  EXPECT_EQ(layout.ram[0].size, 0xD0000000);
  EXPECT_EQ(layout.vcfg.start.value, 0x100000000u);
}

TEST(MemoryMap, OneMoreMegabyteGoesAboveFourGigabytes) {
  MemoryLayout layout = plan(3329);
  ASSERT_EQ(layout.ram.size(), 2u);
  EXPECT_EQ(layout.ram[1].base.value, 0x100000000u);
  EXPECT_EQ(layout.ram[1].size, kMiB);
  EXPECT_EQ(layout.vcfg.start.value, 0x100200000u) << "rounded up to 2 MiB";
}

TEST(MemoryMap, SixGigabytes) {
  MemoryLayout layout = plan(6144);
  EXPECT_EQ(layout.vcfg, (AddressRange{GuestAddress{0x1B0000000}, 0x8000000}));
  EXPECT_EQ(layout.high_mmio.start.value, 0x1B8000000u);
  EXPECT_THAT(layout.e820,
              ElementsAre(ram(0, 0xA0000), reserved(0xA0000, 0x100000), ram(0x100000, 0xD0000000),
                          ram(0x100000000, 0x1B0000000), reserved(0xF4000000, 0xF8000000),
                          reserved(0x1B0000000, 0x1B8000000), reserved(0xFEFFC000, 0xFF000000)));
}

TEST(MemoryMap, OneMegabyteHasNoEmptyEntry) {
  for (const E820Entry& entry : plan(1).e820) EXPECT_NE(entry.range.size, 0u);
}

TEST(MemoryMap, HighWindowEndsWithTheHostsAddressesButNotAboveFortySixBits) {
  EXPECT_EQ(plan(256, 40).high_mmio.end().value, uint64_t{1} << 40);
  EXPECT_EQ(plan(256, 52).high_mmio.end().value, uint64_t{1} << 46);
  EXPECT_EQ(plan(256, 32).high_mmio.size, 0u);
}

TEST(MemoryMap, RefusesSizesThatCannotWork) {
  auto zero = plan_memory({.ram_bytes = 0});
  ASSERT_FALSE(zero.has_value());
  EXPECT_THAT(zero.error().what(), HasSubstr("too small"));

  auto odd = plan_memory({.ram_bytes = 64 * kMiB + 1});
  ASSERT_FALSE(odd.has_value());
  EXPECT_THAT(odd.error().what(), HasSubstr("page size"));

  auto huge = plan_memory({.ram_bytes = UINT64_MAX - 0xFFF, .host_physical_bits = 46});
  ASSERT_FALSE(huge.has_value());
  EXPECT_THAT(huge.error().what(), HasSubstr("physical address bits"));
}

TEST(MemoryMap, TheLargestSizeNamedInTheErrorWorks) {
  for (uint32_t bits : {32u, 33u, 36u, 39u, 46u}) {
    auto refused = plan_memory({.ram_bytes = uint64_t{1} << 60, .host_physical_bits = bits});
    ASSERT_FALSE(refused.has_value());
    const std::string& what = refused.error().what();
    const uint64_t most = std::stoull(what.substr(what.find("--mem ") + 6));
    EXPECT_TRUE(plan_memory({.ram_bytes = most * kMiB, .host_physical_bits = bits}).has_value());
    EXPECT_FALSE(
        plan_memory({.ram_bytes = (most + 4) * kMiB, .host_physical_bits = bits}).has_value());
  }
}

}  // namespace
}  // namespace crosvm::x86_64
