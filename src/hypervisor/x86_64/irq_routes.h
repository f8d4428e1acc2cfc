#pragma once

#include <vector>

#include "hypervisor/hypervisor.h"

namespace crosvm::x86_64 {

/// Numbers of the in-kernel interrupt controllers in an IrqChipPin.
inline constexpr uint32_t kPicPrimary = 0;
inline constexpr uint32_t kPicSecondary = 1;
inline constexpr uint32_t kIoapic = 2;
/// Pins of the IOAPIC, and the first GSI that no pin answers.
inline constexpr uint32_t kIoapicPins = 24;

/// The wiring of a PC: GSI 0 to 7 to the primary PIC and the IOAPIC, 8 to 15 to the secondary PIC
/// and the IOAPIC, 16 to 23 to the IOAPIC alone.
std::vector<IrqRoute> default_irq_routes();

}  // namespace crosvm::x86_64
