#include "pci/pci_places.h"

#include "base/format.h"

namespace crosvm {
namespace {

/// A guest looks at function 0 of a slot, and at the others only when it finds one there.
Result<void> check_found(const PciRoot& root, const PciWish& wish, PciAddress address) {
  PciAddress first{.bus = address.bus, .device = address.device, .function = 0};
  if (root.has(first)) return {};
  return fail(Error::invalid(format_text(
      "{}: PCI address {}: no guest finds it, as nothing is at {}; use that address, or "
      "give it to another device",
      wish.label, address.to_string(), first.to_string())));
}

}  // namespace

Result<std::vector<PciPlace>> reserve_places(PciRoot& root, IntxLines& lines,
                                             std::span<const PciWish> wishes) {
  std::vector<PciPlace> places(wishes.size());
  for (bool particular : {true, false}) {
    for (size_t i = 0; i < wishes.size(); ++i) {
      const PciWish& wish = wishes[i];
      if (wish.address.has_value() != particular) continue;
      places[i].address = TRY(root.reserve(wish.address, wish.label));
    }
  }
  for (size_t i = 0; i < wishes.size(); ++i) {
    TRY(check_found(root, wishes[i], places[i].address));
    if (wishes[i].intx) places[i].intx = lines.assign(places[i].address);
  }
  return places;
}

}  // namespace crosvm
