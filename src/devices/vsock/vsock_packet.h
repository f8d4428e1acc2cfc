#pragma once

#include <linux/virtio_ids.h>
#include <linux/virtio_vsock.h>

#include <cstddef>
#include <cstdint>

namespace crosvm {

/// What every packet begins with (virtio 1.3 §5.10.6). Its fields, as those of the guest, are in
/// little-endian order.
struct [[gnu::packed]] VsockHeader {
  uint64_t src_cid = 0;
  uint64_t dst_cid = 0;
  uint32_t src_port = 0;
  uint32_t dst_port = 0;
  uint32_t len = 0;  ///< of the payload, bytes
  uint16_t type = 0;
  uint16_t op = 0;
  uint32_t flags = 0;
  uint32_t buf_alloc = 0;  ///< the sender's room for a connection, bytes
  uint32_t fwd_cnt = 0;    ///< bytes that left it, since the connection began, modulo 2^32
};
static_assert(sizeof(VsockHeader) == 44);

inline constexpr uint64_t kVsockStream = 1ULL << 0;  // VIRTIO_VSOCK_F_STREAM, not in all headers
inline constexpr uint64_t kVsockSeqpacket = 1ULL << VIRTIO_VSOCK_F_SEQPACKET;

/// Both ends of a connection by their ports: the CIDs are always those of guest and host.
struct VsockPorts {
  uint32_t guest = 0;
  uint32_t host = 0;

  uint64_t key() const { return uint64_t{guest} << 32 | host; }
};

}  // namespace crosvm
