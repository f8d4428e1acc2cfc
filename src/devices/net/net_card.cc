#include "devices/net/net_card.h"

#include <linux/virtio_config.h>

#include <algorithm>

namespace crosvm {

NetCard::NetCard(const NetConfig& config, DeviceEvents& events)
    : events_(events), up_(config.vq_pairs, true) {
  space_ = {.mac = config.mac,
            .status = VIRTIO_NET_S_LINK_UP,
            .max_virtqueue_pairs = config.vq_pairs,
            .mtu = config.mtu};
}

void NetCard::set_link(size_t pair, bool up, bool may_announce) {
  up_[pair] = up;
  const bool was_up = (space_.status & VIRTIO_NET_S_LINK_UP) != 0;
  const bool is_up = std::ranges::all_of(up_, [](bool each) { return each; });
  if (is_up == was_up) return;
  if (!is_up) return set_status(0);
  set_status(
      static_cast<uint16_t>(VIRTIO_NET_S_LINK_UP | (may_announce ? VIRTIO_NET_S_ANNOUNCE : 0)));
}

void NetCard::announce() { set_status(space_.status | VIRTIO_NET_S_ANNOUNCE); }

void NetCard::announced() {
  if ((space_.status & VIRTIO_NET_S_ANNOUNCE) == 0) return;
  set_status(static_cast<uint16_t>(space_.status & ~VIRTIO_NET_S_ANNOUNCE));
}

void NetCard::set_mac(const MacAddress& mac) {
  if (mac == space_.mac) return;
  space_.mac = mac;
  events_.config_changed();
}

void NetCard::set_status(uint16_t status) {
  space_.status = status;
  events_.config_changed();
}

uint64_t net_card_features(const NetConfig& config, uint64_t offloads) {
  uint64_t features = offloads;
  for (unsigned feature : {VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_CTRL_VQ,
                           VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VLAN,
                           VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_GUEST_ANNOUNCE}) {
    features |= net_feature(feature);
  }
  if ((offloads & kNetGuestOffloads) != 0) {
    features |= net_feature(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
  }
  if (config.vq_pairs > 1) features |= net_feature(VIRTIO_NET_F_MQ);
  if (config.mtu != 0) features |= net_feature(VIRTIO_NET_F_MTU);
  if (config.mrg_rxbuf) features |= net_feature(VIRTIO_NET_F_MRG_RXBUF);
  if (config.packed_queue) features |= net_feature(VIRTIO_F_RING_PACKED);
  return features;
}

uint16_t net_control_queue(const NetConfig& config, uint64_t features) {
  const bool many = (features & net_feature(VIRTIO_NET_F_MQ)) != 0;
  return many ? static_cast<uint16_t>(2 * config.vq_pairs) : uint16_t{2};
}

}  // namespace crosvm
