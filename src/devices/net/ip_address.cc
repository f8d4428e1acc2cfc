#include "devices/net/ip_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

#include "base/format.h"

namespace crosvm {
namespace {

std::optional<uint32_t> parse_number(std::string_view text, uint32_t most) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > most) return std::nullopt;
  return value;
}

/// The first `bits` bits.
IpAddress masked(IpAddress address, unsigned bits) {
  for (unsigned byte = 0; byte < address.bytes.size(); ++byte) {
    const unsigned kept = std::clamp(static_cast<int>(bits) - static_cast<int>(8 * byte), 0, 8);
    address.bytes[byte] &= static_cast<uint8_t>(0xff00U >> kept);
  }
  return address;
}

}  // namespace

IpAddress IpAddress::from_bytes(bool v6, std::span<const uint8_t> bytes) {
  IpAddress address{.v6 = v6, .bytes = {}};
  std::ranges::copy(bytes.first(v6 ? 16 : 4), address.bytes.begin());
  return address;
}

IpAddress IpAddress::from_number(uint32_t number) {
  return v4(static_cast<uint8_t>(number >> 24), static_cast<uint8_t>(number >> 16),
            static_cast<uint8_t>(number >> 8), static_cast<uint8_t>(number));
}

uint32_t IpAddress::number() const {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string copy(text);
  if (copy.find('\0') != std::string::npos) return std::nullopt;
  IpAddress address{.v6 = copy.find(':') != std::string::npos, .bytes = {}};
  if (::inet_pton(address.v6 ? AF_INET6 : AF_INET, copy.c_str(), address.bytes.data()) != 1) {
    return std::nullopt;
  }
  return address;
}

bool IpAddress::is_loopback() const {
  if (!v6) return bytes[0] == 127;
  IpAddress only{.v6 = true, .bytes = {}};
  only.bytes.back() = 1;
  return *this == only;
}

std::string IpAddress::to_text() const {
  char text[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(v6 ? AF_INET6 : AF_INET, bytes.data(), text, sizeof(text));
  return text;
}

Result<IpRange> IpRange::parse(std::string_view text) {
  const size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) {
    return fail(
        Error::invalid(format_text("`{}` is not an address like 10.0.0.0/8 or fd00::/8", text)));
  }
  const uint32_t whole = address->v6 ? 128 : 32;
  const auto prefix = slash == std::string_view::npos ? std::optional<uint32_t>(whole)
                                                      : parse_number(text.substr(slash + 1), whole);
  if (!prefix) {
    return fail(Error::invalid(
        format_text("`{}`: the number of bits behind the slash is 0 to {}", text, whole)));
  }
  const IpRange range{.base = masked(*address, *prefix), .prefix = static_cast<uint8_t>(*prefix)};
  if (range.base == *address) return range;
  return fail(Error::invalid(format_text("`{}` is an address within {}; give the one or the other",
                                         text, range.to_text())));
}

bool IpRange::contains(const IpAddress& address) const {
  return address.v6 == base.v6 && masked(address, prefix) == base;
}

std::string IpRange::to_text() const { return format_text("{}/{}", base.to_text(), prefix); }

std::string Endpoint::to_text() const {
  if (!address) return format_text(":{}", port);
  if (address->v6) return format_text("[{}]:{}", address->to_text(), port);
  return format_text("{}:{}", address->to_text(), port);
}

Result<PortRange> parse_ports(std::string_view text) {
  const size_t dash = text.find('-');
  const auto first = parse_number(text.substr(0, dash), 65535);
  const auto last =
      dash == std::string_view::npos ? first : parse_number(text.substr(dash + 1), 65535);
  if (!first || !last || *first == 0 || *first > *last) {
    return fail(Error::invalid(
        format_text("`{}` is neither a port from 1 to 65535 nor two with a dash between", text)));
  }
  return PortRange{.first = static_cast<uint16_t>(*first), .last = static_cast<uint16_t>(*last)};
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  const size_t colon = text.rfind(':');
  Endpoint endpoint;
  std::string_view address = colon == std::string_view::npos ? "" : text.substr(0, colon);
  const bool brackets = address.starts_with('[') && address.ends_with(']');
  if (brackets) address = address.substr(1, address.size() - 2);
  if (!address.empty() || brackets) {
    endpoint.address = IpAddress::parse(address);
    if (!endpoint.address || endpoint.address->v6 != brackets) {
      return fail(
          Error::invalid(format_text("`{}` is not like 127.0.0.1:8080, [::1]:8080 or 8080", text)));
    }
  }
  const PortRange port =
      TRY(parse_ports(colon == std::string_view::npos ? text : text.substr(colon + 1)));
  if (port.first != port.last) {
    return fail(Error::invalid(format_text("`{}`: one port is forwarded to one port", text)));
  }
  endpoint.port = port.first;
  return endpoint;
}

}  // namespace crosvm
