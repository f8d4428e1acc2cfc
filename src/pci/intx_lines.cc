#include "pci/intx_lines.h"

namespace crosvm {

IntxAssignment IntxLines::assign(PciAddress address) {
  const auto pin = static_cast<uint8_t>(address.function % kLines);
  const size_t used = gsi_of_pin_.size();
  const size_t line = used < kLines ? used : address.device % kLines;
  auto [entry, added] =
      gsi_of_pin_.try_emplace(Pin{address.bus, address.device, pin}, gsis_.at(line));
  assignments_.push_back({.address = address, .pin = pin, .gsi = entry->second});
  return assignments_.back();
}

}  // namespace crosvm
