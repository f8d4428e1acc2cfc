#include "devices/net/user/guest_frame.h"

#include <algorithm>

namespace crosvm {
namespace {

constexpr size_t kIpv4HeaderBytes = 20;
constexpr size_t kIpv6HeaderBytes = 40;
constexpr size_t kArpBytes = 28;
constexpr size_t kTcpHeaderBytes = 20;
constexpr size_t kUdpHeaderBytes = 8;
constexpr size_t kIcmpHeaderBytes = 8;
constexpr uint16_t kTcpUrgent = 0x20;       // of the word with the flags
constexpr uint16_t kFragmentBits = 0xbfff;  // all of flags and offset but "don't fragment"

GuestFrame read_arp(std::span<const uint8_t> frame) {
  const auto arp = frame.subspan(kEthernetHeaderBytes);
  if (arp.size() < kArpBytes) return RefusedFrame{"ARP that is cut short"};
  if (load_be16(&arp[0]) != 1 || load_be16(&arp[2]) != kEtherTypeIpv4 || arp[4] != 6 ||
      arp[5] != 4) {
    return RefusedFrame{"ARP of another kind of network"};
  }
  ArpFrame read{.sender_mac = {}, .sender = IpAddress::from_bytes(false, arp.subspan(14))};
  std::ranges::copy(arp.subspan(8, 6), read.sender_mac.begin());
  return read;
}

/// What stands behind the header of IP.
GuestFrame read_payload(std::span<const uint8_t> frame, IpFrame ip) {
  const auto payload = frame.subspan(ip.payload_at, ip.end - ip.payload_at);
  switch (ip.protocol) {
    case kProtocolTcp: {
      if (payload.size() < kTcpHeaderBytes) return RefusedFrame{"TCP that is cut short"};
      const size_t header = size_t{4} * (payload[12] >> 4);
      if (header < kTcpHeaderBytes || header > payload.size()) {
        return RefusedFrame{"TCP with a wrong length"};
      }
      ip.tcp_flags = payload[13];
      break;
    }
    case kProtocolUdp:
      if (payload.size() < kUdpHeaderBytes || load_be16(&payload[4]) != payload.size()) {
        return RefusedFrame{"UDP with a wrong length"};
      }
      break;
    default:
      if (payload.size() < kIcmpHeaderBytes) return RefusedFrame{"ICMP that is cut short"};
      ip.icmp_type = payload[0];
      ip.icmp_code = payload[1];
      return ip;
  }
  ip.source_port = load_be16(&payload[0]);
  ip.destination_port = load_be16(&payload[2]);
  if (ip.source_port == 0 || ip.destination_port == 0) return RefusedFrame{"port 0"};
  return ip;
}

GuestFrame read_ipv4(std::span<const uint8_t> frame) {
  const auto header = frame.subspan(kEthernetHeaderBytes);
  if (header.size() < kIpv4HeaderBytes || header[0] >> 4 != 4) {
    return RefusedFrame{"IPv4 that is cut short"};
  }
  if ((header[0] & 15) != kIpv4HeaderBytes / 4) return RefusedFrame{"options of IPv4"};
  const size_t length = load_be16(&header[2]);
  if (length < kIpv4HeaderBytes || length > header.size()) {
    return RefusedFrame{"IPv4 with a wrong length"};
  }
  if ((load_be16(&header[6]) & kFragmentBits) != 0) return RefusedFrame{"a fragment"};
  const IpFrame ip{.source = IpAddress::from_bytes(false, header.subspan(12)),
                   .destination = IpAddress::from_bytes(false, header.subspan(16)),
                   .protocol = header[9],
                   .hops = header[8],
                   .payload_at = kEthernetHeaderBytes + kIpv4HeaderBytes,
                   .end = kEthernetHeaderBytes + length};
  if (ip.protocol != kProtocolTcp && ip.protocol != kProtocolUdp && ip.protocol != kProtocolIcmp) {
    return RefusedFrame{"a protocol other than TCP, UDP and ICMP"};
  }
  return read_payload(frame, ip);
}

GuestFrame read_ipv6(std::span<const uint8_t> frame) {
  const auto header = frame.subspan(kEthernetHeaderBytes);
  if (header.size() < kIpv6HeaderBytes || header[0] >> 4 != 6) {
    return RefusedFrame{"IPv6 that is cut short"};
  }
  const size_t length = load_be16(&header[4]);
  if (length > header.size() - kIpv6HeaderBytes) return RefusedFrame{"IPv6 with a wrong length"};
  const IpFrame ip{.source = IpAddress::from_bytes(true, header.subspan(8)),
                   .destination = IpAddress::from_bytes(true, header.subspan(24)),
                   .protocol = header[6],
                   .hops = header[7],
                   .payload_at = kEthernetHeaderBytes + kIpv6HeaderBytes,
                   .end = kEthernetHeaderBytes + kIpv6HeaderBytes + length};
  if (ip.protocol != kProtocolTcp && ip.protocol != kProtocolUdp &&
      ip.protocol != kProtocolIcmpv6) {
    return RefusedFrame{"an extension header, or a protocol other than TCP, UDP and ICMP"};
  }
  return read_payload(frame, ip);
}

}  // namespace

GuestFrame read_guest_frame(std::span<const uint8_t> frame) {
  if (frame.size() < kEthernetHeaderBytes) return RefusedFrame{"a frame that is cut short"};
  switch (load_be16(&frame[12])) {
    case kEtherTypeArp:
      return read_arp(frame);
    case kEtherTypeIpv4:
      return read_ipv4(frame);
    case kEtherTypeIpv6:
      return read_ipv6(frame);
    default:
      return RefusedFrame{"neither ARP nor IP"};
  }
}

TcpFields read_tcp(std::span<const uint8_t> frame, const IpFrame& ip) {
  const uint8_t* header = &frame[ip.payload_at];
  const size_t data_at = ip.payload_at + size_t{4} * (header[12] >> 4);
  return {.sequence = load_be32(header + 4),
          .acknowledged = load_be32(header + 8),
          .bytes = static_cast<uint32_t>(ip.end - data_at)};
}

void clear_urgent(std::span<uint8_t> frame, const IpFrame& ip) {
  if (ip.protocol != kProtocolTcp) return;
  uint8_t* flags = &frame[ip.payload_at + 12];
  uint8_t* checksum = &frame[ip.payload_at + 16];
  uint8_t* pointer = &frame[ip.payload_at + 18];
  const uint16_t before = load_be16(flags);
  if ((before & kTcpUrgent) == 0) return;
  const auto after = static_cast<uint16_t>(before & ~kTcpUrgent);
  const auto complement = [](uint16_t word) { return static_cast<uint16_t>(~word); };
  // What changes is taken out of the checksum and put into it (RFC 1624).
  const uint32_t sum = uint32_t{complement(load_be16(checksum))} + complement(before) + after +
                       complement(load_be16(pointer));
  store_be16(flags, after);
  store_be16(pointer, 0);
  store_be16(checksum, internet_checksum(sum));
}

uint32_t add_to_checksum(std::span<const uint8_t> bytes, uint32_t sum) {
  size_t i = 0;
  for (; i + 1 < bytes.size(); i += 2) sum += load_be16(&bytes[i]);
  if (i < bytes.size()) sum += uint32_t{bytes[i]} << 8;
  return sum;
}

uint16_t internet_checksum(uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

}  // namespace crosvm
