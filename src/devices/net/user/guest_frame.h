#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>

#include "devices/net/ip_address.h"
#include "devices/net/net_abi.h"

namespace crosvm {

// Of Ethernet, IP and what it carries, as far as frames of the guest are looked at.
inline constexpr uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr uint16_t kEtherTypeArp = 0x0806;
inline constexpr uint16_t kEtherTypeIpv6 = 0x86dd;
inline constexpr uint8_t kProtocolIcmp = 1;
inline constexpr uint8_t kProtocolTcp = 6;
inline constexpr uint8_t kProtocolUdp = 17;
inline constexpr uint8_t kProtocolIcmpv6 = 58;
inline constexpr uint8_t kTcpFin = 1;
inline constexpr uint8_t kTcpSyn = 2;
inline constexpr uint8_t kTcpRst = 4;
inline constexpr uint8_t kTcpAck = 16;
inline constexpr uint8_t kTcpUrg = 32;

/// A number in the order of networks at `bytes`.
constexpr uint16_t load_be16(const uint8_t* bytes) {
  return static_cast<uint16_t>(bytes[0] << 8 | bytes[1]);
}
constexpr void store_be16(uint8_t* bytes, uint16_t value) {
  bytes[0] = static_cast<uint8_t>(value >> 8);
  bytes[1] = static_cast<uint8_t>(value);
}
constexpr uint32_t load_be32(const uint8_t* bytes) {
  return uint32_t{load_be16(bytes)} << 16 | load_be16(bytes + 2);
}
constexpr void store_be32(uint8_t* bytes, uint32_t value) {
  store_be16(bytes, static_cast<uint16_t>(value >> 16));
  store_be16(bytes + 2, static_cast<uint16_t>(value));
}

/// An ARP packet of Ethernet and IPv4.
struct ArpFrame {
  MacAddress sender_mac{};
  IpAddress sender;
};

/// A whole packet of IP with one of these protocols: not a fragment, no options or extension
/// headers, all lengths within the frame, ports and types read.
struct IpFrame {
  IpAddress source;
  IpAddress destination;
  uint8_t protocol = 0;  ///< one of kProtocol…; kProtocolIcmp with IPv4 alone, and so on
  uint8_t hops = 0;      ///< time to live
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint8_t tcp_flags = 0;
  uint8_t icmp_type = 0;
  uint8_t icmp_code = 0;
  size_t payload_at = 0;  ///< where TCP, UDP or ICMP begins in the frame
  size_t end = 0;         ///< where the packet ends; padding follows
};

/// A frame that goes no further, and why: "a fragment".
struct RefusedFrame {
  std::string_view why;
};

using GuestFrame = std::variant<ArpFrame, IpFrame, RefusedFrame>;

/// Reads a frame as strictly as what judges it needs: what is not clear is refused, so that nobody
/// behind can read it in another way.
GuestFrame read_guest_frame(std::span<const uint8_t> frame);

/// Where a segment of TCP stands in its connection.
struct TcpFields {
  uint32_t sequence = 0;
  uint32_t acknowledged = 0;
  uint32_t bytes = 0;  ///< of data
};
/// Of a packet of TCP that read_guest_frame has read.
TcpFields read_tcp(std::span<const uint8_t> frame, const IpFrame& ip);

/// Makes urgent data of TCP plain data, where it stands in the stream: a library may take the
/// pointer at its word, and it tells of no byte that it does not have.
void clear_urgent(std::span<uint8_t> frame, const IpFrame& ip);

/// The sum of the Internet (RFC 1071) over `bytes`, to be finished by internet_checksum.
uint32_t add_to_checksum(std::span<const uint8_t> bytes, uint32_t sum = 0);
/// The checksum in the order of the host: store_be16 it.
uint16_t internet_checksum(uint32_t sum);

}  // namespace crosvm
