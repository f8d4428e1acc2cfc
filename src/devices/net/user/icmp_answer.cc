#include "devices/net/user/icmp_answer.h"

#include <algorithm>

namespace crosvm {
namespace {

constexpr size_t kIpv4HeaderBytes = 20;
constexpr size_t kIpv6HeaderBytes = 40;
constexpr uint8_t kHops = 64;

void append(std::vector<uint8_t>& to, std::span<const uint8_t> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

void append_ipv4(std::vector<uint8_t>& frame, const IpAddress& from, const IpAddress& to,
                 size_t length) {
  uint8_t header[kIpv4HeaderBytes] = {0x45, 0, 0, 0, 0, 0, 0x40, 0, kHops, kProtocolIcmp};
  store_be16(header + 2, static_cast<uint16_t>(kIpv4HeaderBytes + length));
  std::ranges::copy(from.span(), header + 12);
  std::ranges::copy(to.span(), header + 16);
  store_be16(header + 10, internet_checksum(add_to_checksum(header)));
  append(frame, header);
}

void append_ipv6(std::vector<uint8_t>& frame, const IpAddress& from, const IpAddress& to,
                 size_t length) {
  uint8_t header[kIpv6HeaderBytes] = {0x60};
  store_be16(header + 4, static_cast<uint16_t>(length));
  header[6] = kProtocolIcmpv6;
  header[7] = kHops;
  std::ranges::copy(from.span(), header + 8);
  std::ranges::copy(to.span(), header + 24);
  append(frame, header);
}

}  // namespace

std::vector<uint8_t> icmp_frame_for_guest(std::span<const uint8_t> like, const IpAddress& from,
                                          const IpAddress& to, std::span<const uint8_t> payload) {
  std::vector<uint8_t> frame;
  append(frame, like.subspan(6, 6));
  append(frame, like.first(6));
  append(frame, like.subspan(12, 2));
  uint32_t sum = 0;
  if (from.v6) {
    append_ipv6(frame, from, to, payload.size());
    // The pseudo-header (RFC 8200 §8.1).
    sum = add_to_checksum(to.span(), add_to_checksum(from.span()));
    sum += static_cast<uint32_t>(payload.size()) + kProtocolIcmpv6;
  } else {
    append_ipv4(frame, from, to, payload.size());
  }
  const size_t at = frame.size();
  append(frame, payload);
  store_be16(&frame[at + 2], internet_checksum(add_to_checksum(payload, sum)));
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
