#include "pci/pci_config_space.h"

#include <gtest/gtest.h>

#include <array>

namespace crosvm {
namespace {

TEST(PciConfigSpace, CapabilitiesAreChainedAndBounded) {
  PciConfigSpace config({.vendor = 0x1af4, .device = 0x1042});
  std::array<std::byte, 14> body{};
  EXPECT_EQ(config.add_capability(9, body), 0x40);
  EXPECT_EQ(config.add_capability(17, std::span(body).first(10)), 0x50);
  EXPECT_EQ(config.read(0x34 / 4) & 0xff, 0x40U);
  EXPECT_EQ(config.read(0x40 / 4) & 0xffff, 0x5009U);
  EXPECT_EQ(config.read(0x50 / 4) & 0xffff, 0x0011U);
  EXPECT_NE(config.read(1) & 1U << 20, 0U) << "status says that there is a list";
  int added = 0;
  while (config.add_capability(9, body)) ++added;
  EXPECT_EQ(added, 10);
}

template <class T>
void write_config(PciConfigSpace& config, size_t offset, T value) {
  config.write(offset / 4, offset % 4, std::as_bytes(std::span(&value, 1)));
}

TEST(PciConfigSpace, OnlyTheWritableBitsOfACapabilityChange) {
  PciConfigSpace config({.vendor = 1});
  constexpr std::array<std::byte, 6> kBody{};
  constexpr std::array kWritable{std::byte{}, std::byte{}, std::byte{3}};
  uint8_t at = *config.add_capability(1, kBody, kWritable);
  write_config<uint32_t>(config, at, ~0U);
  write_config<uint32_t>(config, at + 4U, ~0U);
  EXPECT_EQ(config.read(at / 4), 1U);
  EXPECT_EQ(config.read(at / 4 + 1), 3U);
  write_config<uint8_t>(config, at + 4U, 1);
  EXPECT_EQ(config.read(at / 4 + 1), 1U);
}

TEST(PciConfigSpace, MsixControlChangesOnlyAsAWord) {
  PciConfigSpace config({.vendor = 1});
  constexpr std::array<std::byte, 10> kBody{std::byte{3}};  // four vectors
  constexpr std::array kWritable{std::byte{}, std::byte{0xc0}};
  uint8_t at = *config.add_capability(0x11, kBody, kWritable);
  write_config<uint8_t>(config, at + 3U, 0xff);
  write_config<uint32_t>(config, at, ~0U);
  EXPECT_EQ(config.read(at / 4), 0x0003'0011U);
  write_config<uint16_t>(config, at + 2U, 0xffff);
  EXPECT_EQ(config.read(at / 4), 0xc003'0011U) << "enable and function mask";
}

TEST(PciConfigSpace, BarsThatCannotBeAreRefused) {
  PciConfigSpace config({.vendor = 1});
  EXPECT_FALSE(config.add_bar(0, {.size = 24}));
  EXPECT_FALSE(config.add_bar(0, {.size = 8}));
  EXPECT_FALSE(config.add_bar(5, {.kind = PciBar::Kind::kMemory64, .size = 4096}));
  EXPECT_TRUE(config.add_bar(0, {.kind = PciBar::Kind::kMemory64, .size = 1ULL << 33}));
  EXPECT_FALSE(config.add_bar(0, {.size = 4096})) << "taken, without a writable bit below 4 GiB";
  EXPECT_FALSE(config.add_bar(1, {.size = 4096})) << "the upper half of BAR 0";
  EXPECT_TRUE(config.add_bar(2, {.size = 4096}));
  config.set_bar_address(0, 0x12'0000'0000);
  EXPECT_EQ(config.bar_address(0), 0x12'0000'0000U);
}

}  // namespace
}  // namespace crosvm
