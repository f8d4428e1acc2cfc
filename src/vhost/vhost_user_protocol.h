#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "virtio/ring_position.h"

namespace crosvm {

// The vhost-user protocol as its specification has it: numbers and layouts alone. All numbers are
// in native byte order ("Message Specification").

/// "Front-end message types": requests of the front-end, which the back-end answers.
enum VhostUserRequest : uint32_t {
  VHOST_USER_GET_FEATURES = 1,
  VHOST_USER_SET_FEATURES = 2,
  VHOST_USER_SET_OWNER = 3,
  VHOST_USER_RESET_OWNER = 4,
  VHOST_USER_SET_MEM_TABLE = 5,
  VHOST_USER_SET_LOG_BASE = 6,
  VHOST_USER_SET_LOG_FD = 7,
  VHOST_USER_SET_VRING_NUM = 8,
  VHOST_USER_SET_VRING_ADDR = 9,
  VHOST_USER_SET_VRING_BASE = 10,
  VHOST_USER_GET_VRING_BASE = 11,
  VHOST_USER_SET_VRING_KICK = 12,
  VHOST_USER_SET_VRING_CALL = 13,
  VHOST_USER_SET_VRING_ERR = 14,
  VHOST_USER_GET_PROTOCOL_FEATURES = 15,
  VHOST_USER_SET_PROTOCOL_FEATURES = 16,
  VHOST_USER_GET_QUEUE_NUM = 17,
  VHOST_USER_SET_VRING_ENABLE = 18,
  VHOST_USER_SEND_RARP = 19,
  VHOST_USER_NET_SET_MTU = 20,
  VHOST_USER_SET_BACKEND_REQ_FD = 21,
  VHOST_USER_IOTLB_MSG = 22,
  VHOST_USER_SET_VRING_ENDIAN = 23,
  VHOST_USER_GET_CONFIG = 24,
  VHOST_USER_SET_CONFIG = 25,
  VHOST_USER_CREATE_CRYPTO_SESSION = 26,
  VHOST_USER_CLOSE_CRYPTO_SESSION = 27,
  VHOST_USER_POSTCOPY_ADVISE = 28,
  VHOST_USER_POSTCOPY_LISTEN = 29,
  VHOST_USER_POSTCOPY_END = 30,
  VHOST_USER_GET_INFLIGHT_FD = 31,
  VHOST_USER_SET_INFLIGHT_FD = 32,
  VHOST_USER_GPU_SET_SOCKET = 33,
  VHOST_USER_RESET_DEVICE = 34,
  VHOST_USER_VRING_KICK = 35,
  VHOST_USER_GET_MAX_MEM_SLOTS = 36,
  VHOST_USER_ADD_MEM_REG = 37,
  VHOST_USER_REM_MEM_REG = 38,
  VHOST_USER_SET_STATUS = 39,
  VHOST_USER_GET_STATUS = 40,
  VHOST_USER_GET_SHARED_OBJECT = 41,
  VHOST_USER_SET_DEVICE_STATE_FD = 42,
  VHOST_USER_CHECK_DEVICE_STATE = 43,
  VHOST_USER_GET_SHMEM_CONFIG = 44,
};

/// "Back-end message types": requests of the back-end, on a socket of their own.
enum VhostUserBackendRequest : uint32_t {
  VHOST_USER_BACKEND_IOTLB_MSG = 1,
  VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2,
  VHOST_USER_BACKEND_VRING_HOST_NOTIFIER_MSG = 3,
  VHOST_USER_BACKEND_VRING_CALL = 4,
  VHOST_USER_BACKEND_VRING_ERR = 5,
  VHOST_USER_BACKEND_SHARED_OBJECT_ADD = 6,
  VHOST_USER_BACKEND_SHARED_OBJECT_REMOVE = 7,
  VHOST_USER_BACKEND_SHARED_OBJECT_LOOKUP = 8,
  VHOST_USER_BACKEND_SHMEM_MAP = 9,
  VHOST_USER_BACKEND_SHMEM_UNMAP = 10,
};

/// "Header": precedes every message.
struct VhostUserHeader {
  uint32_t request = 0;
  uint32_t flags = 0;
  uint32_t size = 0;  ///< of the payload, bytes
};
static_assert(sizeof(VhostUserHeader) == 12);

// Flags of the header.
inline constexpr uint32_t kVhostUserVersionMask = 3;
inline constexpr uint32_t kVhostUserVersion = 1;
inline constexpr uint32_t kVhostUserReply = 1 << 2;
inline constexpr uint32_t kVhostUserNeedReply = 1 << 3;  ///< with REPLY_ACK

/// Bits of GET_FEATURES and SET_FEATURES that are vhost's own; never shown to a guest.
inline constexpr unsigned kVhostLogAll = 26;                ///< VHOST_F_LOG_ALL, "Migration"
inline constexpr unsigned kVhostUserProtocolFeatures = 30;  ///< VHOST_USER_F_PROTOCOL_FEATURES

/// VIRTIO_NET_F_MTU: the kernel's header that has it is no C++.
inline constexpr unsigned kVirtioNetMtu = 3;

/// "Protocol features": bits of GET_PROTOCOL_FEATURES and SET_PROTOCOL_FEATURES.
enum VhostUserProtocolFeature : unsigned {
  VHOST_USER_PROTOCOL_F_MQ = 0,
  VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1,
  VHOST_USER_PROTOCOL_F_RARP = 2,
  VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
  VHOST_USER_PROTOCOL_F_MTU = 4,
  VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
  VHOST_USER_PROTOCOL_F_CROSS_ENDIAN = 6,
  VHOST_USER_PROTOCOL_F_CRYPTO_SESSION = 7,
  VHOST_USER_PROTOCOL_F_PAGEFAULT = 8,
  VHOST_USER_PROTOCOL_F_CONFIG = 9,
  VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD = 10,
  VHOST_USER_PROTOCOL_F_HOST_NOTIFIER = 11,
  VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
  VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
  VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS = 14,
  VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
  VHOST_USER_PROTOCOL_F_STATUS = 16,
  VHOST_USER_PROTOCOL_F_XEN_MMAP = 17,
  VHOST_USER_PROTOCOL_F_SHARED_OBJECT = 18,
  VHOST_USER_PROTOCOL_F_DEVICE_STATE = 19,
  VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT = 20,
  VHOST_USER_PROTOCOL_F_SHMEM = 21,
  /// What some peers call SHMEM: taken for it only from one that offers this and not bit 21.
  VHOST_USER_PROTOCOL_F_SHMEM_OTHER = 22,
};

constexpr uint64_t vhost_user_bit(unsigned bit) { return uint64_t{1} << bit; }

// Limits. No payload of the specification is larger than the 2056 bytes of GET_SHMEM_CONFIG.
inline constexpr uint32_t kVhostUserMaxPayload = 4096;  ///< bytes
inline constexpr size_t kVhostUserMaxFds = 8;           ///< of one message
inline constexpr size_t kVhostUserMaxRegions = 8;       ///< of one SET_MEM_TABLE
inline constexpr size_t kVhostUserMaxMemSlots = 509;    ///< GET_MAX_MEM_SLOTS, as kernel vhost
inline constexpr size_t kVhostUserMaxConfig = 256;      ///< bytes of one GET_CONFIG, SET_CONFIG
inline constexpr size_t kVhostUserMaxQueues = 256;      ///< an index has 8 bits with descriptors
inline constexpr size_t kVhostUserMaxShmemRegions = 256;
inline constexpr uint64_t kVhostUserLogPage = 4096;  ///< bytes that one bit of the log stands for

// The payload of SET_VRING_KICK, CALL and ERR is one u64.
inline constexpr uint64_t kVhostUserVringIndexMask = 0xff;
inline constexpr uint64_t kVhostUserVringNoFd = 1 << 8;  ///< no descriptor comes along

/// "A vring state description".
struct VhostUserVringState {
  uint32_t index = 0;
  uint32_t num = 0;
};
static_assert(sizeof(VhostUserVringState) == 8);

/// "A vring address description": user addresses of the front-end; `log` is a guest address.
struct VhostUserVringAddr {
  uint32_t index = 0;
  uint32_t flags = 0;  ///< kVhostUserVringLog
  uint64_t descriptor = 0;
  uint64_t used = 0;       ///< packed: device event suppression
  uint64_t available = 0;  ///< packed: driver event suppression
  uint64_t log = 0;
};
static_assert(sizeof(VhostUserVringAddr) == 40);
inline constexpr uint32_t kVhostUserVringLog = 1;  ///< VHOST_VRING_F_LOG

/// "Memory regions description": one region; addresses and sizes in bytes.
struct VhostUserMemoryRegion {
  uint64_t guest_address = 0;
  uint64_t size = 0;
  uint64_t user_address = 0;
  uint64_t mmap_offset = 0;
};
static_assert(sizeof(VhostUserMemoryRegion) == 32);

/// What precedes the regions of SET_MEM_TABLE, as many as there are.
struct VhostUserMemoryHeader {
  uint32_t num_regions = 0;
  uint32_t padding = 0;
};
static_assert(sizeof(VhostUserMemoryHeader) == 8);

/// "Single memory region description" of ADD_MEM_REG and REM_MEM_REG.
struct VhostUserSingleRegion {
  uint64_t padding = 0;
  VhostUserMemoryRegion region;
};
static_assert(sizeof(VhostUserSingleRegion) == 40);

/// "Log description" of SET_LOG_BASE, bytes.
struct VhostUserLog {
  uint64_t size = 0;
  uint64_t offset = 0;
};
static_assert(sizeof(VhostUserLog) == 16);

/// "Virtio device config space": `size` bytes follow.
struct VhostUserConfigHeader {
  uint32_t offset = 0;
  uint32_t size = 0;
  uint32_t flags = 0;  ///< kVhostUserConfig*
};
static_assert(sizeof(VhostUserConfigHeader) == 12);
inline constexpr uint32_t kVhostUserConfigWritable = 0;
inline constexpr uint32_t kVhostUserConfigMigration = 1;

/// "Vring area description" of VRING_HOST_NOTIFIER_MSG.
struct VhostUserVringArea {
  uint64_t index_and_flags = 0;
  uint64_t size = 0;
  uint64_t offset = 0;
};
static_assert(sizeof(VhostUserVringArea) == 24);

/// "Inflight description". The specification's fields take 20 bytes; peers send the 24 of a C
/// structure and some insist on them, so we send 24 and accept both.
struct VhostUserInflight {
  uint64_t mmap_size = 0;
  uint64_t mmap_offset = 0;
  uint16_t num_queues = 0;
  uint16_t queue_size = 0;
  uint32_t padding = 0;
};
static_assert(sizeof(VhostUserInflight) == 24);
inline constexpr size_t kVhostUserInflightBytes = 20;

/// "Device state transfer parameters" of SET_DEVICE_STATE_FD. The answer is a u64: an error in bits
/// 0 to 7, and kVhostUserVringNoFd when no descriptor comes along.
struct VhostUserDeviceState {
  uint32_t direction = 0;  ///< kVhostUserState*
  uint32_t phase = 0;      ///< kVhostUserPhaseStopped
};
static_assert(sizeof(VhostUserDeviceState) == 8);
inline constexpr uint32_t kVhostUserStateSave = 0;
inline constexpr uint32_t kVhostUserStateLoad = 1;
inline constexpr uint32_t kVhostUserPhaseStopped = 0;

/// "MMAP request" of SHMEM_MAP and SHMEM_UNMAP, bytes.
struct VhostUserMmap {
  uint8_t shmid = 0;
  std::array<uint8_t, 7> padding{};
  uint64_t fd_offset = 0;
  uint64_t shm_offset = 0;
  uint64_t length = 0;
  uint64_t flags = 0;  ///< kVhostUserMmapWritable
};
static_assert(sizeof(VhostUserMmap) == 40);
inline constexpr uint64_t kVhostUserMmapWritable = 1;

/// What precedes the sizes of GET_SHMEM_CONFIG, u64 each, as many as there are.
struct VhostUserShmemHeader {
  uint32_t num_regions = 0;
  uint32_t padding = 0;
};
static_assert(sizeof(VhostUserShmemHeader) == 8);

/// `num` of SET_VRING_BASE and GET_VRING_BASE: for a split ring the avail index; for a packed one
/// the avail index and its wrap counter in bits 0 to 15, the used ones in bits 16 to 31 ("Vring
/// descriptor indices for packed virtqueues"). A ring with nothing in flight has both alike.
constexpr uint32_t vhost_user_packed_half(RingPosition position) {
  return (position.index & 0x7fffu) | (position.wrap_counter ? 0x8000u : 0u);
}
constexpr uint32_t vhost_user_vring_base(RingPosition available, RingPosition used, bool packed) {
  if (!packed) return available.index;
  return vhost_user_packed_half(available) | vhost_user_packed_half(used) << 16;
}
constexpr uint32_t vhost_user_vring_base(RingPosition position, bool packed) {
  return vhost_user_vring_base(position, position, packed);
}

/// The avail half of `num`.
constexpr RingPosition vhost_user_ring_position(uint32_t num, bool packed) {
  if (!packed) return {.index = static_cast<uint16_t>(num)};
  return {.index = static_cast<uint16_t>(num & 0x7fff), .wrap_counter = (num & 0x8000) != 0};
}

}  // namespace crosvm
