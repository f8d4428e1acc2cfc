#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace crosvm {

/// Bus, device and function of a PCI function; there is one segment (domain 0).
struct PciAddress {
  uint8_t bus = 0;
  uint8_t device = 0;    ///< 0..31
  uint8_t function = 0;  ///< 0..7

  friend constexpr auto operator<=>(PciAddress, PciAddress) = default;

  /// `[DOMAIN:]BUS:DEV.FUNC`, unprefixed hex (cli.md 1.3). Errors: invalid_argument saying which
  /// part.
  static Result<PciAddress> parse(std::string_view text);
  /// "0000:bb:dd.f"
  std::string to_string() const;
};

}  // namespace crosvm
