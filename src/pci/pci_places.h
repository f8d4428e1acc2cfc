#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "pci/intx_lines.h"
#include "pci/pci_root.h"

namespace crosvm {

/// What a function asks for before it exists.
struct PciWish {
  std::string label;                                 ///< names it in errors
  std::optional<PciAddress> address = std::nullopt;  ///< none: the next free slot
  bool intx = true;                                  ///< whether it has an interrupt pin
};

/// Where a function goes, and its pin.
struct PciPlace {
  PciAddress address;
  std::optional<IntxAssignment> intx = std::nullopt;
};

/// Reserves an address for each of `wishes`, in the order of creation: those with a wish first, so
/// that no other takes theirs. The lines go by that order too. Errors: those of PciRoot::reserve,
/// and invalid_argument for one that no guest would find.
Result<std::vector<PciPlace>> reserve_places(PciRoot& root, IntxLines& lines,
                                             std::span<const PciWish> wishes);

}  // namespace crosvm
