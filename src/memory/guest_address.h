#pragma once

#include <compare>
#include <cstdint>
#include <optional>

namespace crosvm {

/// A guest physical address in bytes.
struct GuestAddress {
  uint64_t value = 0;

  friend constexpr auto operator<=>(GuestAddress, GuestAddress) = default;
  /// The address `bytes` further on, or nothing when it would wrap.
  constexpr std::optional<GuestAddress> checked_add(uint64_t bytes) const {
    if (value > UINT64_MAX - bytes) return std::nullopt;
    return GuestAddress{value + bytes};
  }
  /// For addresses we chose ourselves; the caller knows that it does not wrap.
  constexpr GuestAddress operator+(uint64_t bytes) const { return GuestAddress{value + bytes}; }
};

}  // namespace crosvm
