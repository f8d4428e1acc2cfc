#include "devices/net/net_filter.h"

#include <algorithm>
#include <cstring>

namespace crosvm {
namespace {

constexpr MacAddress kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr size_t kTypeAt = 12;  // of what follows: a tag's, or the packet's
constexpr size_t kTagAt = 14;
constexpr uint16_t kVlanMask = 0x0fff;

uint16_t read_big_endian(std::span<const std::byte> bytes, size_t at) {
  return static_cast<uint16_t>(std::to_integer<uint16_t>(bytes[at]) << 8 |
                               std::to_integer<uint16_t>(bytes[at + 1]));
}

/// The table of VLANs is of these alone: a driver has no command for those of 802.1ad (0x88a8).
constexpr uint16_t kVlanTag = 0x8100;

}  // namespace

bool NetFilter::Table::contains(const MacAddress& address) const {
  if (count > kMostAddresses) return true;
  return std::ranges::find(std::span(addresses).first(count), address) !=
         std::span(addresses).first(count).end();
}

void NetFilter::set_vlan(uint16_t id, bool on) {
  const auto bit = static_cast<uint8_t>(1U << id % 8);
  uint8_t& byte = vlans[id / 8];
  byte = on ? byte | bit : byte & ~bit;
}

bool NetFilter::accepts(std::span<const std::byte> start) const {
  if (start.size() < kEthernetHeaderBytes) return false;
  if (has(kPromiscuous)) return true;
  if (by_vlan != 0 && start.size() >= kLooksAt && read_big_endian(start, kTypeAt) == kVlanTag &&
      !has_vlan(read_big_endian(start, kTagAt) & kVlanMask)) {
    return false;
  }
  MacAddress to;
  std::memcpy(to.data(), start.data(), to.size());
  if (to == kBroadcast) return !has(kNoBroadcast);
  const bool group = (to[0] & 1) != 0;
  if (group) return !has(kNoMulticast) && (has(kAllMulticast) || multicast.contains(to));
  return !has(kNoUnicast) && (has(kAllUnicast) || to == mac || unicast.contains(to));
}

}  // namespace crosvm
