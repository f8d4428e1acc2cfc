#include "pci/msix_table.h"

#include <gtest/gtest.h>

#include <cstring>

namespace crosvm {
namespace {

class MsixTableTest : public testing::Test {
 protected:
  template <class T>
  std::optional<uint16_t> write(uint64_t offset, T value) {
    return table_.write(offset, std::as_bytes(std::span(&value, 1)));
  }
  template <class T>
  std::optional<T> read(uint64_t offset) const {
    T value = 0;
    if (!table_.read(offset, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
    return value;
  }
  template <class T>
  std::optional<T> pending(uint64_t offset) const {
    T value = 0;
    auto bytes = std::as_writable_bytes(std::span(&value, 1));
    if (!table_.read_pending(offset, bytes)) return std::nullopt;
    return value;
  }

  MsixTable table_{66};
};

TEST_F(MsixTableTest, StartsMaskedAndEmpty) {
  EXPECT_EQ(table_.vectors(), 66);
  for (uint16_t vector = 0; vector < 66; ++vector) {
    EXPECT_TRUE(table_.masked(vector));
    EXPECT_EQ(read<uint64_t>(16U * vector), 0U);
    EXPECT_EQ(read<uint64_t>(16U * vector + 8), uint64_t{1} << 32);
  }
}

TEST_F(MsixTableTest, AnEntryIsWrittenInFourOrEightBytes) {
  EXPECT_EQ(write<uint32_t>(0x30, 0xfee01000), 3);
  EXPECT_EQ(write<uint32_t>(0x34, 0x12), 3);
  EXPECT_EQ(write<uint64_t>(0x38, 0x4321), 3) << "data, and unmasks";
  EXPECT_EQ(table_.message(3).address, 0x12'fee0'1000U);
  EXPECT_EQ(table_.message(3).data, 0x4321U);
  EXPECT_FALSE(table_.masked(3));
  EXPECT_EQ(read<uint64_t>(0x30), 0x12'fee0'1000U);
  EXPECT_EQ(read<uint32_t>(0x38), 0x4321U);
  EXPECT_TRUE(table_.masked(2));
  EXPECT_TRUE(table_.masked(4));
}

TEST_F(MsixTableTest, OnlyTheMaskBitOfTheControlIsKept) {
  EXPECT_EQ(write<uint32_t>(0xc, ~0U), 0);
  EXPECT_EQ(read<uint32_t>(0xc), 1U);
  EXPECT_EQ(write<uint32_t>(0xc, ~1U), 0);
  EXPECT_EQ(read<uint32_t>(0xc), 0U);
}

TEST_F(MsixTableTest, OtherAccessesAreRefused) {
  EXPECT_FALSE(write<uint8_t>(0, 0xff));
  EXPECT_FALSE(write<uint16_t>(0, 0xffff));
  EXPECT_FALSE(write<uint32_t>(2, ~0U));
  EXPECT_FALSE(write<uint64_t>(4, ~0ULL)) << "not naturally aligned";
  EXPECT_FALSE(write<uint32_t>(66 * 16, ~0U)) << "behind the table";
  EXPECT_FALSE(write<uint64_t>(UINT64_MAX - 7, ~0ULL));
  EXPECT_EQ(read<uint64_t>(0), 0U) << "nothing has changed";
  EXPECT_FALSE(read<uint8_t>(0));
  EXPECT_FALSE(read<uint16_t>(0xc));
  EXPECT_FALSE(read<uint32_t>(1));
  EXPECT_FALSE(read<uint64_t>(66 * 16));
  EXPECT_FALSE(pending<uint16_t>(0));
  EXPECT_FALSE(pending<uint64_t>(4));
  EXPECT_FALSE(pending<uint32_t>(16)) << "66 bits are two quadwords";
}

TEST_F(MsixTableTest, PendingBitsAreThoseOfTheirVectors) {
  table_.set_pending(0);
  table_.set_pending(33);
  table_.set_pending(65);
  EXPECT_EQ(pending<uint64_t>(0), 1U | uint64_t{1} << 33);
  EXPECT_EQ(pending<uint32_t>(8), 2U);
  EXPECT_TRUE(table_.take_pending(33));
  EXPECT_FALSE(table_.take_pending(33));
  EXPECT_EQ(pending<uint64_t>(0), 1U);
  table_.clear_pending();
  EXPECT_FALSE(table_.take_pending(0));
  EXPECT_EQ(pending<uint32_t>(8), 0U);
}

}  // namespace
}  // namespace crosvm
