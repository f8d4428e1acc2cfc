#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "pci/pci_address.h"

namespace crosvm {

/// The INTx pin of a function and the interrupt line that it drives.
struct IntxAssignment {
  PciAddress address;
  uint8_t pin = 0;  ///< 0 is INTA, 3 is INTD
  uint32_t gsi = 0;
};

/// Shares four interrupt lines among the INTx pins of all PCI functions (platform.md 1.4).
class IntxLines {
 public:
  static constexpr size_t kLines = 4;

  explicit IntxLines(const std::array<uint32_t, kLines>& gsis) : gsis_(gsis) {}

  /// The pin and line of the function at `address`. Its number decides on the pin; functions of a
  /// slot with the same pin have one line. The first four pins get a line each, later ones share by
  /// the number of their slot.
  IntxAssignment assign(PciAddress address);

  /// All assignments, in their order.
  const std::vector<IntxAssignment>& assignments() const { return assignments_; }

 private:
  using Pin = std::tuple<uint8_t, uint8_t, uint8_t>;  // bus, device, pin

  const std::array<uint32_t, kLines> gsis_;
  std::map<Pin, uint32_t> gsi_of_pin_;
  std::vector<IntxAssignment> assignments_;
};

}  // namespace crosvm
