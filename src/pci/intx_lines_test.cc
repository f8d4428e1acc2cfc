#include "pci/intx_lines.h"

#include <gtest/gtest.h>

namespace crosvm {
namespace {

class IntxLinesTest : public testing::Test {
 protected:
  uint32_t gsi(uint8_t device, uint8_t function = 0, uint8_t bus = 0) {
    return lines_.assign({.bus = bus, .device = device, .function = function}).gsi;
  }
  IntxLines lines_{{9, 10, 11, 12}};
};

TEST_F(IntxLinesTest, TheFirstFourPinsHaveALineEachAndLaterOnesGoByTheirSlot) {
  EXPECT_EQ(gsi(3), 9U);
  EXPECT_EQ(gsi(1), 10U);
  EXPECT_EQ(gsi(2), 11U);
  EXPECT_EQ(gsi(7), 12U);
  EXPECT_EQ(gsi(4), 9U);
  EXPECT_EQ(gsi(5), 10U);
  EXPECT_EQ(gsi(6), 11U);
  EXPECT_EQ(gsi(31), 12U);
  EXPECT_EQ(gsi(3, 0, 1), 12U) << "another bus, another pin";
}

TEST_F(IntxLinesTest, TheFunctionDecidesOnThePin) {
  for (uint8_t function = 0; function < 8; ++function) {
    IntxAssignment assigned = lines_.assign({.device = 1, .function = function});
    EXPECT_EQ(assigned.pin, function % 4);
    EXPECT_EQ(assigned.gsi, 9U + function % 4) << "4 to 7 share the lines of 0 to 3";
  }
  ASSERT_EQ(lines_.assignments().size(), 8U);
  EXPECT_EQ(lines_.assignments()[6].address, (PciAddress{.device = 1, .function = 6}));
  EXPECT_EQ(lines_.assignments()[6].pin, 2);
  EXPECT_EQ(lines_.assignments()[6].gsi, 11U);
}

TEST_F(IntxLinesTest, SharingAPinKeepsItsLineWhenAllAreTaken) {
  for (uint8_t device : {4, 8, 12, 16}) gsi(device);
  EXPECT_EQ(gsi(8, 4), 10U);
}

}  // namespace
}  // namespace crosvm
