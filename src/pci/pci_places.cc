#include "pci/pci_places.h"

namespace crosvm {

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
    if (wishes[i].intx) places[i].intx = lines.assign(places[i].address);
  }
  return places;
}

}  // namespace crosvm
