#include "devices/net/net_header.h"

#include <algorithm>

#include "base/format.h"

namespace crosvm {
namespace {

/// The feature by which a driver may ask for this segmentation; 0: none.
uint64_t feature_of_gso(uint8_t type) {
  switch (type) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return net_feature(VIRTIO_NET_F_HOST_TSO4);
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return net_feature(VIRTIO_NET_F_HOST_TSO6);
    case VIRTIO_NET_HDR_GSO_UDP:
      return net_feature(VIRTIO_NET_F_HOST_UFO);
    case kNetGsoUdpL4:
      return net_feature(kNetFeatureHostUso);
    default:
      return 0;
  }
}

bool is_tcp(uint8_t type) {
  return type == VIRTIO_NET_HDR_GSO_TCPV4 || type == VIRTIO_NET_HDR_GSO_TCPV6;
}

Result<void> check_checksum(const NetHeader& header, uint64_t packet_bytes, uint64_t features) {
  if ((features & net_feature(VIRTIO_NET_F_CSUM)) == 0) {
    return fail(Error::invalid("it asks for a checksum, which was not negotiated"));
  }
  const uint64_t end = uint64_t{header.csum_start} + header.csum_offset + sizeof(uint16_t);
  if (end <= packet_bytes) return {};
  return fail(
      Error::invalid(format_text("its checksum at {} + {} lies outside a packet of {} bytes",
                                 header.csum_start, header.csum_offset, packet_bytes)));
}

Result<void> check_segments(const NetHeader& header, uint64_t features) {
  const uint8_t type = header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
  const bool ecn = type != header.gso_type;
  uint64_t needed = feature_of_gso(type);
  if (needed == 0) return fail(Error::invalid(format_text("gso_type {}", header.gso_type)));
  if (ecn) needed |= net_feature(VIRTIO_NET_F_HOST_ECN);
  if ((features & needed) != needed || (ecn && !is_tcp(type))) {
    return fail(
        Error::invalid(format_text("gso_type {}, which was not negotiated", header.gso_type)));
  }
  if (header.gso_size == 0) return fail(Error::invalid("it asks for segments of no bytes"));
  if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0) return {};
  return fail(Error::invalid("it asks for segments, but for none of their checksums"));
}

}  // namespace

Result<NetHeader> checked_net_header(NetHeader header, uint64_t packet_bytes, uint64_t features) {
  if (packet_bytes < kEthernetHeaderBytes || packet_bytes > kMostPacketBytes) {
    return fail(Error::invalid(format_text("a packet of {} bytes, not {} to {}", packet_bytes,
                                           kEthernetHeaderBytes, kMostPacketBytes)));
  }
  // The other flags are the device's.
  header.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.num_buffers = 0;
  if (header.flags != 0) {
    TRY(check_checksum(header, packet_bytes, features));
  } else {
    header.csum_start = 0;
    header.csum_offset = 0;
  }
  if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE) {
    TRY(check_segments(header, features));
  } else {
    header.gso_size = 0;
  }
  header.hdr_len = static_cast<uint16_t>(std::min<uint64_t>(header.hdr_len, packet_bytes));
  return header;
}

bool may_be_received(const NetHeader& header, uint64_t features) {
  const auto has = [&](unsigned feature) { return (features & net_feature(feature)) != 0; };
  if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0 && !has(VIRTIO_NET_F_GUEST_CSUM)) {
    return false;
  }
  if ((header.gso_type & VIRTIO_NET_HDR_GSO_ECN) != 0 && !has(VIRTIO_NET_F_GUEST_ECN)) {
    return false;
  }
  switch (header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE:
      return true;
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return has(VIRTIO_NET_F_GUEST_TSO4);
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return has(VIRTIO_NET_F_GUEST_TSO6);
    case VIRTIO_NET_HDR_GSO_UDP:
      return has(VIRTIO_NET_F_GUEST_UFO);
    case kNetGsoUdpL4:
      return has(kNetFeatureGuestUso4) || has(kNetFeatureGuestUso6);
    default:
      return false;
  }
}

}  // namespace crosvm
