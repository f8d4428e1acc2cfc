#include "vhost/vhost_memory_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace crosvm {
namespace {

using testing::HasSubstr;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kUser = 0x7f0000000000;

Fd make_file(uint64_t bytes) {
  Fd file(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
  return file;
}

VhostUserMemoryRegion region(uint64_t guest, uint64_t pages, uint64_t user) {
  return {.guest_address = guest, .size = pages * kPage, .user_address = user, .mmap_offset = 0};
}

TEST(VhostMemoryTable, TranslatesUserAddresses) {
  VhostMemoryTable table;
  const VhostUserMemoryRegion regions[] = {region(0x100000, 2, kUser),
                                           region(0, 2, kUser + 0x10000)};
  std::vector<Fd> files;
  files.push_back(make_file(2 * kPage));
  files.push_back(make_file(2 * kPage));
  const auto memory = table.set(regions, std::move(files));
  ASSERT_TRUE(memory) << memory.error().what();
  EXPECT_EQ(memory->total_bytes(), 4 * kPage);
  EXPECT_EQ(table.guest_address(kUser + 5), GuestAddress{0x100005});
  EXPECT_EQ(table.guest_address(kUser + 2 * kPage - 1), GuestAddress{0x100000 + 2 * kPage - 1});
  EXPECT_EQ(table.guest_address(kUser + 2 * kPage), std::nullopt);
  EXPECT_EQ(table.guest_address(kUser - 1), std::nullopt);
  EXPECT_EQ(table.guest_address(kUser + 0x10000), GuestAddress{0});
  EXPECT_EQ(table.guest_address(UINT64_MAX), std::nullopt);
}

TEST(VhostMemoryTable, AddsAndRemovesRegions) {
  VhostMemoryTable table;
  ASSERT_TRUE(table.add(region(0, 1, kUser), make_file(kPage)));
  const auto both = table.add(region(kPage, 1, kUser + kPage), make_file(kPage));
  ASSERT_TRUE(both);
  EXPECT_EQ(both->regions().size(), 2u);
  EXPECT_FALSE(table.remove(region(0, 2, kUser)));
  EXPECT_FALSE(table.remove(region(kPage, 1, kUser)));
  const auto one = table.remove(region(0, 1, kUser));
  ASSERT_TRUE(one);
  EXPECT_FALSE(one->slice({0}, 1));
  EXPECT_TRUE(one->slice({kPage}, 1));
  const auto none = table.remove(region(kPage, 1, kUser + kPage));
  ASSERT_TRUE(none);
  EXPECT_EQ(none->total_bytes(), 0u);
}

TEST(VhostMemoryTable, WhatLiesIsRefusedAndChangesNothing) {
  VhostMemoryTable table;
  ASSERT_TRUE(table.add(region(0, 2, kUser), make_file(2 * kPage)));
  struct Case {
    VhostUserMemoryRegion region;
    const char* says;
  };
  const Case cases[] = {
      {region(0x10000, 2, kUser + kPage), "overlaps"},        // of user addresses
      {region(kPage, 2, kUser + 0x10000), "overlaps"},        // of guest addresses
      {region(0x10000, 3, kUser + 0x10000), "past the end"},  // of its file
      {region(0x10000, 0, kUser + 0x10000), "empty"},
      {region(0x10000, 2, kUser + 0x10010), "whole pages"},
      {region(0x10000, 2, UINT64_MAX - kPage + 1), "wraps"},
      {region(UINT64_MAX - kPage + 1, 2, kUser + 0x10000), "addressed"},
  };
  for (const Case& each : cases) {
    const auto memory = table.add(each.region, make_file(2 * kPage));
    ASSERT_FALSE(memory) << each.says;
    EXPECT_THAT(memory.error().what(), HasSubstr(each.says));
    EXPECT_EQ(table.regions(), 1u);
  }
  EXPECT_FALSE(table.add(region(0x10000, 1, kUser + 0x10000), Fd()));
  const VhostUserMemoryRegion regions[] = {region(0x10000, 1, kUser)};
  EXPECT_FALSE(table.set(regions, {}));
  EXPECT_EQ(table.guest_address(kUser), GuestAddress{0});
}

TEST(VhostMemoryTable, HasAnEnd) {
  VhostMemoryTable table;
  for (uint64_t i = 0; i < kVhostUserMaxMemSlots; ++i) {
    ASSERT_TRUE(table.add(region(i * kPage, 1, kUser + i * kPage), make_file(kPage)));
  }
  const uint64_t next = kVhostUserMaxMemSlots * kPage;
  EXPECT_FALSE(table.add(region(next, 1, kUser + next), make_file(kPage)));
}

}  // namespace
}  // namespace crosvm
