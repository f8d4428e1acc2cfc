#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace crosvm {

/// An address of IPv4 (its 4 bytes come first, the rest is 0) or IPv6.
struct IpAddress {
  bool v6 = false;
  std::array<uint8_t, 16> bytes{};

  static IpAddress v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
    return {.v6 = false, .bytes = {a, b, c, d}};
  }
  /// From as many bytes as the family has.
  static IpAddress from_bytes(bool v6, std::span<const uint8_t> bytes);
  /// Of IPv4, in the order of the host.
  static IpAddress from_number(uint32_t number);
  uint32_t number() const;  ///< of IPv4, in the order of the host
  /// "10.0.2.15" or "fd00::15".
  static std::optional<IpAddress> parse(std::string_view text);

  std::span<const uint8_t> span() const { return std::span(bytes).first(v6 ? 16 : 4); }
  bool is_zero() const { return *this == IpAddress{.v6 = v6, .bytes = {}}; }
  bool is_loopback() const;  ///< ::1, or of 127.0.0.0/8
  std::string to_text() const;
  friend bool operator==(const IpAddress&, const IpAddress&) = default;
  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;
};

/// All addresses that begin with `prefix` bits of `base`.
struct IpRange {
  IpAddress base;
  uint8_t prefix = 0;

  /// "10.0.0.0/8", "fd00::/8", or a single address. Bits behind the prefix must be 0. Errors:
  /// invalid_argument quoting the text.
  static Result<IpRange> parse(std::string_view text);
  bool contains(const IpAddress& address) const;
  std::string to_text() const;
  friend bool operator==(const IpRange&, const IpRange&) = default;
};

/// Ports of addresses.
struct PortRange {
  uint16_t first = 0;
  uint16_t last = 65535;

  bool all() const { return first == 0 && last == 65535; }
  bool contains(uint16_t port) const { return first <= port && port <= last; }
  friend bool operator==(const PortRange&, const PortRange&) = default;
};

/// An address, which may be left out, and a port.
struct Endpoint {
  std::optional<IpAddress> address;
  uint16_t port = 0;

  std::string to_text() const;
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

/// "443" or "8000-8100"; a port is at least 1.
Result<PortRange> parse_ports(std::string_view text);
/// "80", ":80", "127.0.0.1:80" or "[::1]:80".
Result<Endpoint> parse_endpoint(std::string_view text);

}  // namespace crosvm
