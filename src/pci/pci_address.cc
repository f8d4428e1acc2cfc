#include "pci/pci_address.h"

#include <charconv>

#include "base/format.h"

namespace crosvm {
namespace {

Result<uint8_t> part(std::string_view text, std::string_view whole, std::string_view name,
                     unsigned limit) {
  unsigned value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size() || value > limit) {
    return fail(
        Error::invalid(format_text("PCI address \"{}\": the {} \"{}\" is not a hex number of at "
                                   "most {:x}; write [DOMAIN:]BUS:DEV.FUNC, e.g. 00:03.0",
                                   whole, name, text, limit)));
  }
  return static_cast<uint8_t>(value);
}

}  // namespace

Result<PciAddress> PciAddress::parse(std::string_view text) {
  std::string_view rest = text;
  size_t dot = rest.rfind('.');
  size_t colon = rest.rfind(':', dot);
  if (dot == std::string_view::npos || colon == std::string_view::npos) {
    return fail(Error::invalid(
        format_text("PCI address \"{}\": write [DOMAIN:]BUS:DEV.FUNC, e.g. 00:03.0", text)));
  }
  std::string_view bus = rest.substr(0, colon);
  if (size_t first = bus.find(':'); first != std::string_view::npos) {
    TRY(part(bus.substr(0, first), text, "domain", 0));
    bus.remove_prefix(first + 1);
  }
  return PciAddress{
      .bus = TRY(part(bus, text, "bus", 0xff)),
      .device = TRY(part(rest.substr(colon + 1, dot - colon - 1), text, "device", 0x1f)),
      .function = TRY(part(rest.substr(dot + 1), text, "function", 7)),
  };
}

std::string PciAddress::to_string() const {
  return format_text("0000:{:02x}:{:02x}.{:x}", bus, device, function);
}

}  // namespace crosvm
