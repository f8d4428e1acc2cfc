#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "devices/net/ip_address.h"
#include "devices/net/user/guest_frame.h"

namespace crosvm {

/// Frames as a guest makes them, for tests.
using Bytes = std::vector<uint8_t>;

inline constexpr MacAddress kTestMac{0x02, 0, 0, 0, 0, 1};
inline constexpr MacAddress kTestGatewayMac{0x52, 0x55, 10, 0, 2, 2};
inline constexpr uint8_t kTestSyn = 2;
inline constexpr uint8_t kTestPush = 8;
inline constexpr uint8_t kTestAck = 16;

inline IpAddress ip(std::string_view text) { return *IpAddress::parse(text); }

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline Bytes be16(size_t value) {
  return {static_cast<uint8_t>(value >> 8), static_cast<uint8_t>(value)};
}
inline Bytes be32(uint32_t value) { return be16(value >> 16) + be16(value & 0xffff); }
inline Bytes bytes_of(std::string_view text) { return {text.begin(), text.end()}; }
inline Bytes bytes_of(const IpAddress& address) {
  return {address.span().begin(), address.span().end()};
}
inline Bytes bytes_of(const MacAddress& mac) { return {mac.begin(), mac.end()}; }

inline Bytes ethernet(uint16_t type, const Bytes& payload, const MacAddress& to = kTestGatewayMac,
                      const MacAddress& from = kTestMac) {
  return bytes_of(to) + bytes_of(from) + be16(type) + payload;
}

inline Bytes arp_request(const IpAddress& sender, const IpAddress& target,
                         const MacAddress& mac = kTestMac) {
  return ethernet(kEtherTypeArp,
                  be16(1) + be16(kEtherTypeIpv4) + Bytes{6, 4} + be16(1) + bytes_of(mac) +
                      bytes_of(sender) + Bytes(6) + bytes_of(target),
                  {0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
}

/// A packet of IP; the checksum of `payload` at `checksum_at` is put in.
inline Bytes ip_frame(const IpAddress& from, const IpAddress& to, uint8_t protocol, Bytes payload,
                      size_t checksum_at, uint8_t hops = 64) {
  uint32_t sum = 0;
  if (protocol != kProtocolIcmp) {
    sum = add_to_checksum(to.span(), add_to_checksum(from.span()));
    sum += static_cast<uint32_t>(payload.size()) + protocol;
  }
  if (checksum_at + 2 <= payload.size()) {
    store_be16(&payload[checksum_at], internet_checksum(add_to_checksum(payload, sum)));
  }
  if (from.v6) {
    return ethernet(kEtherTypeIpv6, Bytes{0x60, 0, 0, 0} + be16(payload.size()) +
                                        Bytes{protocol, hops} + bytes_of(from) + bytes_of(to) +
                                        payload);
  }
  Bytes header = Bytes{0x45, 0} + be16(20 + payload.size()) +
                 Bytes{0, 1, 0x40, 0, hops, protocol, 0, 0} + bytes_of(from) + bytes_of(to);
  store_be16(&header[10], internet_checksum(add_to_checksum(header)));
  return ethernet(kEtherTypeIpv4, header + payload);
}

inline Bytes udp_frame(const IpAddress& from, uint16_t from_port, const IpAddress& to,
                       uint16_t to_port, const Bytes& data) {
  return ip_frame(from, to, kProtocolUdp,
                  be16(from_port) + be16(to_port) + be16(8 + data.size()) + be16(0) + data, 6);
}

struct TcpSegment {
  uint32_t sequence = 1000;
  uint32_t acknowledged = 0;
  uint8_t flags = kTestSyn;
  Bytes data = {};
};
inline Bytes tcp_frame(const IpAddress& from, uint16_t from_port, const IpAddress& to,
                       uint16_t to_port, const TcpSegment& segment = {}) {
  return ip_frame(from, to, kProtocolTcp,
                  be16(from_port) + be16(to_port) + be32(segment.sequence) +
                      be32(segment.acknowledged) + Bytes{0x50, segment.flags} + be16(65535) +
                      be16(0) + be16(0) + segment.data,
                  16);
}

inline Bytes icmp_frame(const IpAddress& from, const IpAddress& to, uint8_t type,
                        const Bytes& rest = {0x12, 0x34, 0, 1}, uint8_t hops = 64) {
  return ip_frame(from, to, from.v6 ? kProtocolIcmpv6 : kProtocolIcmp, Bytes{type, 0, 0, 0} + rest,
                  2, hops);
}

/// The router asked for itself, from an address of the link.
inline Bytes router_solicitation(const IpAddress& from) {
  return icmp_frame(from, ip("ff02::2"), 133, Bytes(4), 255);
}
/// "I have the address `from`", unasked.
inline Bytes neighbour_advertisement(const IpAddress& from, const IpAddress& to) {
  return icmp_frame(from, to, 136,
                    Bytes{0x20, 0, 0, 0} + bytes_of(from) + Bytes{2, 1} + bytes_of(kTestMac), 255);
}

/// DHCPDISCOVER.
inline Bytes dhcp_discover(const MacAddress& client = kTestMac) {
  Bytes bootp = Bytes{1, 1, 6, 0} + be32(0x12345678) + Bytes(20) + bytes_of(client) + Bytes(10) +
                Bytes(64 + 128) + Bytes{0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
  bootp.resize(300);
  return udp_frame(ip("0.0.0.0"), 68, ip("255.255.255.255"), 67, bootp);
}

}  // namespace crosvm
