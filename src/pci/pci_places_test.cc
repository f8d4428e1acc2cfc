#include "pci/pci_places.h"

#include <gtest/gtest.h>

namespace crosvm {
namespace {

class PciPlacesTest : public testing::Test {
 protected:
  Bus mmio_{"mmio"};
  Bus io_{"io"};
  PciRoot root_{mmio_, io_, PciWindows{.low_mmio = {0, 0}, .high_mmio = {0, 0}, .io = {0, 0}}};
  IntxLines lines_{{9, 10, 11, 12}};
};

TEST_F(PciPlacesTest, WishesComeFirstAndLinesByOrder) {
  const std::vector<PciWish> wishes = {{.label = "block0"},
                                       {.label = "rng", .intx = false},
                                       {.label = "block1", .address = PciAddress{.device = 1}},
                                       {.label = "net"}};
  auto places = reserve_places(root_, lines_, wishes);
  ASSERT_TRUE(places.has_value());
  std::vector<int> slots;
  for (const PciPlace& place : *places) slots.push_back(place.address.device);
  EXPECT_EQ(slots, (std::vector<int>{2, 3, 1, 4}));
  EXPECT_EQ((*places)[0].intx->gsi, 9U);
  EXPECT_FALSE((*places)[1].intx.has_value());
  EXPECT_EQ((*places)[2].intx->gsi, 10U);
  EXPECT_EQ((*places)[3].intx->gsi, 11U);
}

TEST_F(PciPlacesTest, TheSameWishTwiceIsRefused) {
  const std::vector<PciWish> wishes = {{.label = "a", .address = PciAddress{.device = 6}},
                                       {.label = "b", .address = PciAddress{.device = 6}}};
  auto places = reserve_places(root_, lines_, wishes);
  ASSERT_FALSE(places.has_value());
  EXPECT_EQ(places.error().what(), "b: PCI address 0000:00:06.0 is taken by a; choose another");
}

TEST_F(PciPlacesTest, ABusThatIsNotThereIsRefused) {
  const std::vector<PciWish> wishes = {{.label = "a", .address = PciAddress{.bus = 1}}};
  auto places = reserve_places(root_, lines_, wishes);
  ASSERT_FALSE(places.has_value());
  EXPECT_EQ(places.error().what(),
            "a: PCI address 0000:01:00.0: there is no bus 1; choose an address of bus 0, or leave "
            "the choice to crosvm");
}

TEST_F(PciPlacesTest, AFunctionNeedsTheFirstOneOfItsSlot) {
  const PciAddress third{.device = 6, .function = 2};
  auto alone =
      reserve_places(root_, lines_, std::vector<PciWish>{{.label = "a", .address = third}});
  ASSERT_FALSE(alone.has_value());
  EXPECT_EQ(alone.error().what(),
            "a: PCI address 0000:00:06.2: no guest finds it, as nothing is at 0000:00:06.0; use "
            "that address, or give it to another device");
}

TEST_F(PciPlacesTest, TheFirstFunctionMayComeLater) {
  const std::vector<PciWish> wishes = {
      {.label = "a", .address = PciAddress{.device = 6, .function = 2}},
      {.label = "b", .address = PciAddress{.device = 6}},
      {.label = "beside the host bridge", .address = PciAddress{.function = 1}}};
  EXPECT_TRUE(reserve_places(root_, lines_, wishes).has_value());
}

TEST_F(PciPlacesTest, OneDeviceTooMany) {
  auto places = reserve_places(root_, lines_, std::vector<PciWish>(249, {.label = "a"}));
  ASSERT_FALSE(places.has_value());
  EXPECT_EQ(places.error().what(),
            "a: all PCI addresses of bus 0 are taken; give the VM fewer devices");
}

}  // namespace
}  // namespace crosvm
