#include "hypervisor/x86_64/irq_routes.h"

namespace crosvm::x86_64 {

std::vector<IrqRoute> default_irq_routes() {
  constexpr uint32_t kPicPins = 8;
  std::vector<IrqRoute> routes;
  for (uint32_t gsi = 0; gsi < kIoapicPins; ++gsi) {
    if (gsi < 2 * kPicPins) {
      const uint32_t chip = gsi < kPicPins ? kPicPrimary : kPicSecondary;
      routes.push_back({.gsi = gsi, .target = IrqChipPin{.chip = chip, .pin = gsi % kPicPins}});
    }
    routes.push_back({.gsi = gsi, .target = IrqChipPin{.chip = kIoapic, .pin = gsi}});
  }
  return routes;
}

}  // namespace crosvm::x86_64
