#include "devices/net/net_header.h"

#include <gtest/gtest.h>

namespace crosvm {
namespace {

constexpr uint64_t kAll = kNetHostOffloads;
constexpr uint64_t kPacket = 1000;

NetHeader with_checksum(NetHeader header = {}) {
  header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.csum_start = 34;
  header.csum_offset = 16;
  return header;
}
NetHeader with_segments(uint8_t type) {
  NetHeader header = with_checksum();
  header.gso_type = type;
  header.gso_size = 100;
  return header;
}
bool passes(const NetHeader& header, uint64_t features = kAll, uint64_t bytes = kPacket) {
  return checked_net_header(header, bytes, features).has_value();
}

TEST(NetHeaderTest, PassesWhatWasNegotiatedAlone) {
  EXPECT_TRUE(passes({}, 0));
  EXPECT_TRUE(passes(with_checksum()));
  EXPECT_FALSE(passes(with_checksum(), kAll & ~net_feature(VIRTIO_NET_F_CSUM)));
  const struct {
    uint8_t type;
    unsigned feature;
  } kinds[] = {{VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_F_HOST_TSO4},
               {VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_F_HOST_TSO6},
               {VIRTIO_NET_HDR_GSO_UDP, VIRTIO_NET_F_HOST_UFO},
               {kNetGsoUdpL4, kNetFeatureHostUso},
               {VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_F_HOST_ECN}};
  for (const auto& kind : kinds) {
    SCOPED_TRACE(int{kind.type});
    EXPECT_TRUE(passes(with_segments(kind.type)));
    EXPECT_FALSE(passes(with_segments(kind.type), kAll & ~net_feature(kind.feature)));
  }
}

TEST(NetHeaderTest, RefusesSegmentationThatCannotBe) {
  for (int type : {2, 6, 7, 0x7f, 0x80, 0x82, 0x83, 0x85, 0xff}) {
    EXPECT_FALSE(passes(with_segments(static_cast<uint8_t>(type)))) << type;
  }
  NetHeader no_size = with_segments(VIRTIO_NET_HDR_GSO_TCPV4);
  no_size.gso_size = 0;
  EXPECT_FALSE(passes(no_size));
  NetHeader no_checksum = with_segments(VIRTIO_NET_HDR_GSO_TCPV4);
  no_checksum.flags = 0;
  EXPECT_FALSE(passes(no_checksum));
}

TEST(NetHeaderTest, TheChecksumLiesInThePacket) {
  NetHeader header = with_checksum();
  header.csum_start = kPacket - 18;
  EXPECT_TRUE(passes(header));
  header.csum_start = kPacket - 17;
  EXPECT_FALSE(passes(header));
  header.csum_start = 0xffff;
  header.csum_offset = 0xffff;
  EXPECT_FALSE(passes(header));
}

TEST(NetHeaderTest, ThePacketHasAHeaderAndAnEnd) {
  EXPECT_FALSE(passes({}, kAll, 0));
  EXPECT_FALSE(passes({}, kAll, kEthernetHeaderBytes - 1));
  EXPECT_TRUE(passes({}, kAll, kEthernetHeaderBytes));
  EXPECT_TRUE(passes({}, kAll, kMostPacketBytes));
  EXPECT_FALSE(passes({}, kAll, kMostPacketBytes + 1));
}

TEST(NetHeaderTest, WhatMeansNothingIsCleared) {
  const NetHeader noise{.flags = 0xff & ~VIRTIO_NET_HDR_F_NEEDS_CSUM,
                        .gso_type = 0,
                        .hdr_len = 0xffff,
                        .gso_size = 7,
                        .csum_start = 8,
                        .csum_offset = 9,
                        .num_buffers = 10};
  auto checked = checked_net_header(noise, kPacket, kAll);
  ASSERT_TRUE(checked.has_value());
  EXPECT_EQ(checked->flags, 0);
  EXPECT_EQ(checked->hdr_len, kPacket);
  EXPECT_EQ(checked->gso_size, 0);
  EXPECT_EQ(checked->csum_start, 0);
  EXPECT_EQ(checked->csum_offset, 0);
  EXPECT_EQ(checked->num_buffers, 0);
}

TEST(NetHeaderTest, ADriverGetsWhatItNegotiated) {
  constexpr uint64_t kCsum = net_feature(VIRTIO_NET_F_GUEST_CSUM);
  const struct {
    uint8_t gso_type;
    uint64_t needed;
  } kinds[] = {
      {VIRTIO_NET_HDR_GSO_NONE, kCsum},
      {VIRTIO_NET_HDR_GSO_TCPV4, kCsum | net_feature(VIRTIO_NET_F_GUEST_TSO4)},
      {VIRTIO_NET_HDR_GSO_TCPV6, kCsum | net_feature(VIRTIO_NET_F_GUEST_TSO6)},
      {VIRTIO_NET_HDR_GSO_UDP, kCsum | net_feature(VIRTIO_NET_F_GUEST_UFO)},
      {VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN,
       kCsum | net_feature(VIRTIO_NET_F_GUEST_TSO4) | net_feature(VIRTIO_NET_F_GUEST_ECN)},
  };
  for (const auto& kind : kinds) {
    SCOPED_TRACE(int{kind.gso_type});
    const NetHeader header{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = kind.gso_type};
    EXPECT_TRUE(may_be_received(header, kind.needed));
    for (unsigned bit = 0; bit < 64; ++bit) {
      if ((kind.needed & net_feature(bit)) == 0) continue;
      EXPECT_FALSE(may_be_received(header, kNetGuestOffloads & ~net_feature(bit))) << bit;
    }
  }
  const NetHeader uso{.gso_type = kNetGsoUdpL4};
  EXPECT_TRUE(may_be_received(uso, net_feature(kNetFeatureGuestUso6)));
  EXPECT_FALSE(may_be_received(uso, 0));
  EXPECT_FALSE(may_be_received({.gso_type = 6}, ~uint64_t{0}));
  EXPECT_TRUE(may_be_received({.flags = VIRTIO_NET_HDR_F_DATA_VALID}, 0));
}

}  // namespace
}  // namespace crosvm
