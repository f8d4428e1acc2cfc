#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/net/net_abi.h"
#include "devices/net/net_config.h"
#include "virtio/virtio_device.h"

namespace crosvm {

/// struct virtio_net_config as far as our features go (§5.1.4): what the driver reads of a card.
struct NetConfigSpace {
  MacAddress mac{};
  uint16_t status = 0;
  uint16_t max_virtqueue_pairs = 1;
  uint16_t mtu = 0;
};
static_assert(sizeof(NetConfigSpace) == 12);

/// The configuration space of a card, and the link that it tells of.
class NetCard {
 public:
  /// `events` outlives this.
  NetCard(const NetConfig& config, DeviceEvents& events);

  std::span<const std::byte> space() const { return std::as_bytes(std::span(&space_, 1)); }
  uint16_t mtu() const { return space_.mtu; }
  void set_mtu(uint16_t mtu) { space_.mtu = mtu; }
  void set_mac(const MacAddress& mac);
  /// The port of a queue pair says whether it reaches the network: the link is up when all do. A
  /// driver that can (`may_announce`) is told to announce itself to a network that comes back.
  void set_link(size_t pair, bool up, bool may_announce);
  /// The driver is to tell the network where its address is (§5.1.6.5.4), until `announced`.
  void announce();
  void announced();

 private:
  void set_status(uint16_t status);

  DeviceEvents& events_;
  NetConfigSpace space_;
  std::vector<bool> up_;  // by pair
};

/// The features of a card whose ports can do `offloads`, packed rings included if they are wanted.
uint64_t net_card_features(const NetConfig& config, uint64_t offloads);

/// The index of the control queue (§5.1.2): behind all pairs if the driver can use several.
uint16_t net_control_queue(const NetConfig& config, uint64_t features);

}  // namespace crosvm
