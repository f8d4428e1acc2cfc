#include "devices/net/user/own_frames.h"

#include <algorithm>

namespace crosvm {
namespace {

constexpr size_t kIpv4HeaderBytes = 20;
constexpr size_t kIpv6HeaderBytes = 40;
constexpr size_t kTcpHeaderBytes = 20;
constexpr uint8_t kHops = 64;

void append(std::vector<uint8_t>& to, std::span<const uint8_t> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

void append_ipv4(std::vector<uint8_t>& frame, const IpAddress& from, const IpAddress& to,
                 uint8_t protocol, size_t length) {
  uint8_t header[kIpv4HeaderBytes] = {0x45, 0, 0, 0, 0, 0, 0x40, 0, kHops, protocol};
  store_be16(header + 2, static_cast<uint16_t>(kIpv4HeaderBytes + length));
  std::ranges::copy(from.span(), header + 12);
  std::ranges::copy(to.span(), header + 16);
  store_be16(header + 10, internet_checksum(add_to_checksum(header)));
  append(frame, header);
}

void append_ipv6(std::vector<uint8_t>& frame, const IpAddress& from, const IpAddress& to,
                 uint8_t protocol, size_t length) {
  uint8_t header[kIpv6HeaderBytes] = {0x60};
  store_be16(header + 4, static_cast<uint16_t>(length));
  header[6] = protocol;
  header[7] = kHops;
  std::ranges::copy(from.span(), header + 8);
  std::ranges::copy(to.span(), header + 24);
  append(frame, header);
}

/// Behind the header of Ethernet in `frame`: all of IP, the checksum of `payload` put in.
void append_ip(std::vector<uint8_t>& frame, const IpAddress& from, const IpAddress& to,
               uint8_t protocol, std::span<const uint8_t> payload, size_t checksum_at) {
  (from.v6 ? append_ipv6 : append_ipv4)(frame, from, to, protocol, payload.size());
  uint32_t sum = 0;
  if (protocol != kProtocolIcmp) {  // the pseudo-header (RFC 8200 §8.1, RFC 9293 §3.1)
    sum = add_to_checksum(to.span(), add_to_checksum(from.span()));
    sum += static_cast<uint32_t>(payload.size()) + protocol;
  }
  const size_t at = frame.size();
  append(frame, payload);
  store_be16(&frame[at + checksum_at], internet_checksum(add_to_checksum(payload, sum)));
}

}  // namespace

std::vector<uint8_t> icmp_frame_for_guest(std::span<const uint8_t> like, const IpAddress& from,
                                          const IpAddress& to, std::span<const uint8_t> payload) {
  std::vector<uint8_t> frame;
  append(frame, like.subspan(6, 6));
  append(frame, like.first(6));
  append(frame, like.subspan(12, 2));
  append_ip(frame, from, to, from.v6 ? kProtocolIcmpv6 : kProtocolIcmp, payload, 2);
  return frame;
}

std::vector<uint8_t> reset_frame(const FlowLedger::Ends& ends, uint32_t sequence,
                                 std::optional<uint32_t> acknowledged) {
  std::vector<uint8_t> frame(kEthernetHeaderBytes);
  store_be16(&frame[12], ends.guest.first.v6 ? kEtherTypeIpv6 : kEtherTypeIpv4);
  uint8_t header[kTcpHeaderBytes] = {};
  store_be16(header, ends.guest.second);
  store_be16(header + 2, ends.other.second);
  store_be32(header + 4, sequence);
  store_be32(header + 8, acknowledged.value_or(0));
  header[12] = (kTcpHeaderBytes / 4) << 4;
  header[13] = static_cast<uint8_t>(kTcpRst | (acknowledged ? kTcpAck : 0));
  append_ip(frame, ends.guest.first, ends.other.first, kProtocolTcp, header, 16);
  return frame;
}

std::vector<uint8_t> denial_of(std::span<const uint8_t> frame, const IpFrame& ip,
                               const UserNetConfig& config) {
  // RFC 792 and 1812 want the header and 8 bytes; RFC 4443 as much as fits in 1280.
  constexpr size_t kMostIpv6Bytes = 1280 - kIpv6HeaderBytes - 8;
  const bool v6 = ip.source.v6;
  const auto packet = frame.subspan(kEthernetHeaderBytes, ip.end - kEthernetHeaderBytes);
  std::vector<uint8_t> message = {uint8_t(v6 ? 1 : 3), uint8_t(v6 ? 1 : 13), 0, 0, 0, 0, 0, 0};
  append(message,
         packet.first(std::min(packet.size(), v6 ? kMostIpv6Bytes : kIpv4HeaderBytes + 8)));
  return icmp_frame_for_guest(frame, v6 ? config.gateway6() : config.gateway4(), ip.source,
                              message);
}

}  // namespace crosvm
