#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "devices/net/net_abi.h"

namespace crosvm {

/// Which packets the driver wants to receive (virtio 1.3 §5.1.6.5.1 to 5.1.6.5.3). Plain bytes, as
/// it is part of a device's state.
struct NetFilter {
  enum Mode : uint8_t {
    kPromiscuous = 1,
    kAllMulticast = 2,
    kAllUnicast = 4,
    kNoMulticast = 8,
    kNoUnicast = 16,
    kNoBroadcast = 32,
  };
  /// Of each table. A driver with more gets all packets of that kind.
  static constexpr size_t kMostAddresses = 64;
  static constexpr uint16_t kVlans = 4096;

  struct Table {
    uint8_t count = 0;  ///< more than kMostAddresses: every address is in it
    std::array<MacAddress, kMostAddresses> addresses{};

    bool contains(const MacAddress& address) const;
    friend bool operator==(const Table&, const Table&) = default;
  };

  MacAddress mac{};
  uint8_t modes = kPromiscuous;
  /// Not 0: of packets with a tag of 802.1Q only those of `vlans`, unless promiscuous.
  uint8_t by_vlan = 0;
  Table unicast;
  Table multicast;
  std::array<uint8_t, kVlans / 8> vlans{};

  bool has(Mode mode) const { return (modes & mode) != 0; }
  void set(Mode mode, bool on) { modes = on ? modes | mode : modes & ~mode; }
  bool has_vlan(uint16_t id) const { return (vlans[id / 8] >> id % 8 & 1) != 0; }
  void set_vlan(uint16_t id, bool on);

  /// Bytes of a packet that `accepts` looks at.
  static constexpr size_t kLooksAt = 18;
  /// Whether the driver wants a packet that begins with these bytes. One without an Ethernet header
  /// is of no use to it.
  bool accepts(std::span<const std::byte> start) const;

  friend bool operator==(const NetFilter&, const NetFilter&) = default;
};
static_assert(std::has_unique_object_representations_v<NetFilter>);

}  // namespace crosvm
