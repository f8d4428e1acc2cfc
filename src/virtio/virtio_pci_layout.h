#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "pci/pci_config_space.h"

/// What a virtio function looks like to PCI: who it is, its BARs and its capabilities (devices.md
/// 3.5, virtio 1.3 §4.1.2 to §4.1.4). Offsets and lengths are in bytes.
namespace crosvm::virtio_pci {

/// A structure in BAR 0.
struct Region {
  uint64_t offset = 0;
  uint64_t length = 0;
  constexpr bool contains(uint64_t at) const { return at >= offset && at - offset < length; }
};

inline constexpr size_t kBar = 0;
inline constexpr uint64_t kBarSize = 0x8000;
/// As far as queue_reset, the last register that a feature we offer brings.
inline constexpr Region kCommon{0x0000, 60};
inline constexpr Region kIsr{0x1000, 1};
inline constexpr Region kDeviceConfig{0x2000, 0x1000};
inline constexpr Region kNotify{0x3000, 0x1000};
inline constexpr uint32_t kNotifyMultiplier = 4;
inline constexpr Region kMsixTable{0x6000, 0x1000};
inline constexpr Region kMsixPending{0x7000, 0x1000};

inline constexpr size_t kMaxQueues = kNotify.length / kNotifyMultiplier;
inline constexpr uint16_t kMaxVectors = kMsixTable.length / 16;

inline constexpr size_t kSharedMemoryBar = 2;

/// A run of memory that device and driver share (§2.10), the whole of BAR 2.
struct SharedMemory {
  uint8_t id = 0;
  uint64_t length = 0;
};

/// Where INTx goes: pin 1..4 for INTA..INTD, and the line that firmware would have written.
struct Intx {
  uint8_t pin = 0;
  uint8_t line = 0;
};

/// Where in configuration space the registers stand that do something.
struct CapabilityOffsets {
  uint8_t pci_config = 0;
  uint8_t msix = 0;
  uint8_t power_management = 0;
};

/// Vendor, device and class of a device type (virtio 1.3 §5).
PciIdentity identity(uint32_t device_type);
/// Declares BARs and capabilities. Errors: invalid_argument for a shared memory region without
/// length or longer than a BAR can be.
Result<CapabilityOffsets> build_config_space(PciConfigSpace& config, uint16_t vectors,
                                             const std::optional<SharedMemory>& shared_memory);

}  // namespace crosvm::virtio_pci
