#include "vhost/vhost_user_types.h"

#include <linux/virtio_ids.h>

#include <array>

namespace crosvm {
namespace {

// Of <linux/virtio_net.h>, which is not for C++: VIRTIO_NET_F_CTRL_VQ, and what needs it
// (virtio 1.3 §5.1.3.1).
constexpr unsigned kNetControlQueue = 17;
constexpr std::array kNeedControlQueue = {
    2u,   // CTRL_GUEST_OFFLOADS
    18u,  // CTRL_RX
    19u,  // CTRL_VLAN
    20u,  // CTRL_RX_EXTRA
    21u,  // GUEST_ANNOUNCE
    22u,  // MQ
    23u,  // CTRL_MAC_ADDR
    50u,  // DEVICE_STATS
    51u,  // HASH_TUNNEL
    52u,  // VQ_NOTF_COAL
    53u,  // NOTF_COAL
    57u,  // HASH_REPORT
    60u,  // RSS
};

// Device types that the kernel headers do not name.
constexpr uint32_t kMedia = 48;
constexpr uint32_t kPvclock = 61;
constexpr uint32_t kTpm = 62;
constexpr uint32_t kWl = 63;

const std::array<VhostUserType, 22>& types() {
  static const std::array<VhostUserType, 22> all{{
      {VIRTIO_ID_NET, 3, {24, 17, 12, 10, 8, 6}},
      {VIRTIO_ID_BLOCK, 1, {96, 72, 60, 36, 34, 24, 8}},
      {VIRTIO_ID_CONSOLE, 2, {12, 8, 4}},
      {VIRTIO_ID_RNG, 1, {}},
      {VIRTIO_ID_BALLOON, 2, {16, 12, 8}},
      {VIRTIO_ID_SCSI, 3, {36}},
      {VIRTIO_ID_9P, 1, {256, 2}},
      {VIRTIO_ID_GPU, 2, {20, 16}},
      {VIRTIO_ID_INPUT, 2, {136}},
      {VIRTIO_ID_VSOCK, 3, {8}},
      {VIRTIO_ID_IOMMU, 2, {40, 36}},
      {VIRTIO_ID_SOUND, 4, {16, 12}},
      {VIRTIO_ID_FS, 2, {40, 44}},
      {VIRTIO_ID_PMEM, 1, {16}},
      {VIRTIO_ID_MAC80211_HWSIM, 2, {}},
      {VIRTIO_ID_VIDEO_ENCODER, 2, {12}},
      {VIRTIO_ID_VIDEO_DECODER, 2, {12}},
      {VIRTIO_ID_SCMI, 2, {}},
      {kMedia, 2, {40}},
      {kPvclock, 1, {16}},
      {kTpm, 1, {}},
      {kWl, 2, {}},
  }};
  return all;
}

}  // namespace

VhostUserType vhost_user_type(uint32_t device_type) {
  for (const VhostUserType& type : types()) {
    if (type.device_type == device_type) return type;
  }
  return {.device_type = device_type, .least_queues = 1, .config_lengths = {}};
}

uint64_t vhost_user_features_with_config(uint32_t device_type) {
  if (device_type != VIRTIO_ID_NET) return 0;
  uint64_t features = uint64_t{1} << kNetControlQueue;
  for (const unsigned bit : kNeedControlQueue) features |= uint64_t{1} << bit;
  return features;
}

uint64_t vhost_user_queue_count(const VhostUserType& type, uint64_t told, uint64_t features) {
  if (told == 0) return type.least_queues;
  if (type.device_type != VIRTIO_ID_NET || told > UINT16_MAX) return told;
  return 2 * told + (features >> kNetControlQueue & 1);
}

uint64_t vhost_user_told_queues(uint32_t device_type, uint64_t queues) {
  return device_type == VIRTIO_ID_NET ? queues / 2 : queues;
}

}  // namespace crosvm
