#include "hypervisor/x86_64/irq_routes.h"

#include <gtest/gtest.h>

namespace crosvm::x86_64 {
namespace {

TEST(IrqRoutes, DefaultTableIsWiredLikeAPc) {
  const auto routes = default_irq_routes();
  EXPECT_EQ(routes.size(), 16u + 24u);
  const auto leads_to = [&](uint32_t gsi, uint32_t chip, uint32_t pin) {
    for (const IrqRoute& route : routes) {
      const auto& target = std::get<IrqChipPin>(route.target);
      if (route.gsi == gsi && target.chip == chip && target.pin == pin) return true;
    }
    return false;
  };
  EXPECT_TRUE(leads_to(0, kPicPrimary, 0));
  EXPECT_TRUE(leads_to(7, kPicPrimary, 7));
  EXPECT_TRUE(leads_to(8, kPicSecondary, 0));
  EXPECT_TRUE(leads_to(15, kPicSecondary, 7));
  for (uint32_t gsi = 0; gsi < 24; ++gsi) EXPECT_TRUE(leads_to(gsi, kIoapic, gsi)) << gsi;
}

}  // namespace
}  // namespace crosvm::x86_64
