#pragma once

/// Numbers of network devices (virtio 1.3 §5.1) that the kernel's headers lack, and the structures
/// of ours that stand for theirs.

// One of its structures has a member of that name, which no C++ has.
#define class command_class
#include <linux/virtio_net.h>
#undef class

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace crosvm {

// In headers from Linux 6.2 on.
inline constexpr unsigned kNetFeatureGuestUso4 = 54;  // VIRTIO_NET_F_GUEST_USO4
inline constexpr unsigned kNetFeatureGuestUso6 = 55;  // VIRTIO_NET_F_GUEST_USO6
inline constexpr unsigned kNetFeatureHostUso = 56;    // VIRTIO_NET_F_HOST_USO
inline constexpr uint8_t kNetGsoUdpL4 = 5;            // VIRTIO_NET_HDR_GSO_UDP_L4

constexpr uint64_t net_feature(unsigned bit) { return uint64_t{1} << bit; }

/// What the device may leave to the driver in packets for the guest.
inline constexpr uint64_t kNetGuestOffloads =
    net_feature(VIRTIO_NET_F_GUEST_CSUM) | net_feature(VIRTIO_NET_F_GUEST_TSO4) |
    net_feature(VIRTIO_NET_F_GUEST_TSO6) | net_feature(VIRTIO_NET_F_GUEST_ECN) |
    net_feature(VIRTIO_NET_F_GUEST_UFO) | net_feature(kNetFeatureGuestUso4) |
    net_feature(kNetFeatureGuestUso6);
/// What the driver may leave to the device in packets of the guest.
inline constexpr uint64_t kNetHostOffloads =
    net_feature(VIRTIO_NET_F_CSUM) | net_feature(VIRTIO_NET_F_HOST_TSO4) |
    net_feature(VIRTIO_NET_F_HOST_TSO6) | net_feature(VIRTIO_NET_F_HOST_ECN) |
    net_feature(VIRTIO_NET_F_HOST_UFO) | net_feature(kNetFeatureHostUso);

/// struct virtio_net_hdr_v1, before each packet (§5.1.6); all fields little-endian.
struct NetHeader {
  uint8_t flags = 0;
  uint8_t gso_type = 0;
  uint16_t hdr_len = 0;
  uint16_t gso_size = 0;
  uint16_t csum_start = 0;
  uint16_t csum_offset = 0;
  uint16_t num_buffers = 0;
};
inline constexpr size_t kNetHeaderBytes = sizeof(NetHeader);
static_assert(kNetHeaderBytes == 12 && std::has_unique_object_representations_v<NetHeader>);

/// The longest packet of either direction, in bytes without its NetHeader: 64 KiB behind Ethernet's
/// header with a VLAN tag (§5.1.6.3.1, and the tag).
inline constexpr size_t kMostPacketBytes = 65536 + 14 + 4;
inline constexpr size_t kEthernetHeaderBytes = 14;

using MacAddress = std::array<uint8_t, 6>;

}  // namespace crosvm
