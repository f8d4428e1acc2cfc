#include "hypervisor/msi_routes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "hypervisor/fake_vm.h"

namespace crosvm {
namespace {

constexpr MsiMessage kFirst{.address = 0xfee00000, .data = 0x41};
constexpr MsiMessage kSecond{.address = 0xfee01000, .data = 0x42};

class MsiRoutesTest : public testing::Test {
 protected:
  /// The message of `gsi` in the VM's table.
  std::optional<MsiMessage> message(uint32_t gsi) const {
    for (const IrqRoute& route : vm_.routes()) {
      if (route.gsi == gsi) return std::get<MsiMessage>(route.target);
    }
    return std::nullopt;
  }

  test::FakeVm vm_;
  MsiRoutes routes_{
      vm_, {{.gsi = 5, .target = IrqChipPin{.chip = 2, .pin = 5}}}, /*first_gsi=*/24, 26};
};

TEST_F(MsiRoutesTest, EachMessageHasAGsiBesideTheFixedRoutes) {
  EXPECT_EQ(*routes_.allocate(kFirst), 24U);
  EXPECT_EQ(*routes_.allocate(kSecond), 25U);
  std::vector<IrqRoute> table = vm_.routes();
  ASSERT_EQ(table.size(), 3U);
  EXPECT_EQ(table[0].gsi, 5U);
  EXPECT_EQ(std::get<IrqChipPin>(table[0].target).pin, 5U);
  EXPECT_EQ(message(24)->data, kFirst.data);
  EXPECT_EQ(message(25)->address, kSecond.address);
}

TEST_F(MsiRoutesTest, ReleasedGsisAreUsedAgainAndNoOthers) {
  for (uint32_t gsi : {24U, 25U, 26U}) EXPECT_EQ(*routes_.allocate(kFirst), gsi);
  auto full = routes_.allocate(kFirst);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), std::errc::no_space_on_device);
  routes_.release(25);
  EXPECT_EQ(*routes_.allocate(kSecond), 25U);
  EXPECT_EQ(message(25)->data, kSecond.data);
}

TEST_F(MsiRoutesTest, OnlyAChangeIsPushed) {
  uint32_t gsi = *routes_.allocate(kFirst);
  int before = vm_.pushes();
  ASSERT_TRUE(routes_.update(gsi, kFirst));
  EXPECT_EQ(vm_.pushes(), before);
  ASSERT_TRUE(routes_.update(gsi, {.address = kFirst.address, .data = 0x99}));
  EXPECT_EQ(vm_.pushes(), before + 1);
  EXPECT_EQ(message(gsi)->data, 0x99U);
}

TEST_F(MsiRoutesTest, WhatTheHypervisorRefusesLeavesEverythingAsItWas) {
  uint32_t gsi = *routes_.allocate(kFirst);
  vm_.fail_with(ENOMEM);
  EXPECT_EQ(routes_.allocate(kSecond).error().code(), std::errc::not_enough_memory);
  EXPECT_FALSE(routes_.update(gsi, kSecond));
  vm_.fail_with(0);
  EXPECT_EQ(*routes_.allocate(kSecond), gsi + 1);
  EXPECT_EQ(message(gsi)->data, kFirst.data);
}

}  // namespace
}  // namespace crosvm
