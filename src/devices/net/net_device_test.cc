#include "devices/net/net_device.h"

#include <gtest/gtest.h>
#include <linux/virtio_ids.h>

#include <algorithm>
#include <thread>

#include "devices/net/net_test_port.h"
#include "virtio/rig/hostile_chains.h"

namespace crosvm {
namespace {

using std::chrono::milliseconds;

std::vector<std::byte> packet_of(size_t bytes, uint8_t seed = 1) {
  std::vector<std::byte> packet(bytes);
  for (size_t i = 0; i < bytes; ++i) packet[i] = std::byte(static_cast<uint8_t>(i * 7 + seed));
  return packet;
}

/// To an address.
std::vector<std::byte> packet_to(const MacAddress& to, uint16_t type = 0x0800, uint16_t tag = 0) {
  std::vector<std::byte> packet = packet_of(60);
  std::memcpy(packet.data(), to.data(), to.size());
  packet[12] = std::byte(type >> 8);
  packet[13] = std::byte(type & 0xff);
  packet[14] = std::byte(tag >> 8);
  packet[15] = std::byte(tag & 0xff);
  return packet;
}

class NetDeviceTest : public testing::TestWithParam<std::tuple<RigPlace, bool>> {
 protected:
  static constexpr uint16_t kRx = 0;
  static constexpr uint16_t kTx = 1;
  static constexpr uint16_t kControl = 2;

  static RigOptions options() {
    return {.place = std::get<0>(GetParam()), .packed = std::get<1>(GetParam())};
  }
  Rig make_rig(NetConfig config = test_card(), RigOptions wanted = options()) {
    config.packed_queue = wanted.packed;
    return make_card({&network_}, wanted, config);
  }
  /// A card of a pair for each network.
  static Rig make_pairs(std::vector<TestNetwork*> networks, const RigOptions& wanted) {
    NetConfig config = test_card();
    config.packed_queue = wanted.packed;
    return make_card(std::move(networks), wanted, config);
  }
  /// What the guest has sent.
  std::optional<TestNetwork::Received> sent(Rig& rig) const {
    for (int i = 0; i < 2000; ++i) {
      rig.run_once();
      if (auto got = network_.receive()) return got;
      if (rig.options().place != RigPlace::kInline) std::this_thread::sleep_for(milliseconds(1));
    }
    return std::nullopt;
  }
  static RigUsed send(Rig& rig, const NetHeader& header, std::span<const std::byte> packet,
                      uint16_t queue = kTx) {
    rig.driver(queue).send({readable(header), readable(packet)});
    return rig.driver(queue).wait_used();
  }
  /// A command; returns the device's answer.
  static int command(Rig& rig, uint8_t kind, uint8_t number, std::span<const std::byte> data,
                     uint16_t queue = kControl) {
    const std::array<uint8_t, 2> header{kind, number};
    rig.driver(queue).send({readable(header), readable(data), writable(1)});
    const RigUsed used = rig.driver(queue).wait_used();
    return used.written == 1 ? used.last_byte() : -1;
  }
  template <GuestPod T>
  static int command(Rig& rig, uint8_t kind, uint8_t number, const T& data,
                     uint16_t queue = kControl) {
    return command(rig, kind, number, std::as_bytes(std::span(&data, 1)), queue);
  }
  /// The command of a card of three pairs.
  static int use_pairs(Rig& rig, uint16_t pairs) {
    return command(rig, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, pairs, 6);
  }
  /// What came to the guest in one buffer, without the header.
  static std::vector<std::byte> body(const RigUsed& used) {
    if (used.written < kNetHeaderBytes) return {};
    return {used.bytes.begin() + kNetHeaderBytes, used.bytes.begin() + used.written};
  }
  static NetHeader header_of(const RigUsed& used) {
    NetHeader header;
    CHECK(used.bytes.size() >= kNetHeaderBytes);
    std::memcpy(&header, used.bytes.data(), kNetHeaderBytes);
    return header;
  }
  static NetConfigSpace space(const Rig& rig) {
    NetConfigSpace space;
    CHECK(rig.config().size() == sizeof(space));
    std::memcpy(&space, rig.config().data(), sizeof(space));
    return space;
  }
  static bool becomes(const std::atomic<bool>& used, bool wanted) {
    for (int i = 0; i < 2000 && used != wanted; ++i) std::this_thread::sleep_for(milliseconds(1));
    return used == wanted;
  }
  TestNetwork network_;
};
INSTANTIATE_TEST_SUITE_P(Places, NetDeviceTest,
                         testing::Combine(testing::Values(RigPlace::kInline, RigPlace::kThread),
                                          testing::Bool()),
                         [](const auto& info) {
                           return name_of(std::get<0>(info.param)) +
                                  (std::get<1>(info.param) ? "Packed" : "Split");
                         });

TEST_P(NetDeviceTest, TheDriverHearsOfLongPacketsBeforeTheLast) {
  RigOptions wanted = options();
  if (wanted.place != RigPlace::kInline) GTEST_SKIP() << "what one turn does";
  wanted.event_idx = false;  // each time it could hear of it, it does
  auto rig = make_rig(test_card(), wanted);
  constexpr int kCount = 4;
  for (const size_t bytes : {size_t{60}, size_t{40'000}}) {
    SCOPED_TRACE(bytes);
    const uint64_t interrupts = bytes == 60 ? 1 : kCount;
    for (int i = 0; i < kCount; ++i) {
      rig.driver(kTx).add({readable(NetHeader{}), readable(packet_of(bytes))});
    }
    rig.driver(kTx).kick();
    rig.settle();
    EXPECT_EQ(rig.driver(kTx).take_interrupts(), interrupts);
    for (int i = 0; i < kCount; ++i) EXPECT_TRUE(rig.driver(kTx).try_used().has_value());
    for (int i = 0; i < kCount; ++i) EXPECT_TRUE(network_.receive().has_value());

    for (int i = 0; i < kCount; ++i) rig.driver(kRx).add({writable(50'000)});
    for (int i = 0; i < kCount; ++i) network_.send({}, packet_of(bytes));
    rig.driver(kRx).kick();
    rig.settle();
    EXPECT_EQ(rig.driver(kRx).take_interrupts(), interrupts);
    for (int i = 0; i < kCount; ++i) EXPECT_TRUE(rig.driver(kRx).try_used().has_value());
  }
}

TEST_P(NetDeviceTest, SaysWhatItIs) {
  auto rig = make_rig();
  EXPECT_EQ(rig.info().device_type, unsigned{VIRTIO_ID_NET});
  EXPECT_EQ(rig.info().queue_sizes, (std::vector<uint16_t>{256, 256, 256}));
  const uint64_t all = kNetGuestOffloads | kNetHostOffloads;
  EXPECT_EQ(rig.info().features & all, all);
  EXPECT_EQ(rig.info().features & net_feature(VIRTIO_NET_F_MQ), 0u);
  const NetConfigSpace config = space(rig);
  EXPECT_EQ(config.mac, kTestMac);
  EXPECT_EQ(config.status, VIRTIO_NET_S_LINK_UP);
  EXPECT_EQ(config.max_virtqueue_pairs, 1u);
  EXPECT_EQ(config.mtu, 1500u);
}

TEST_P(NetDeviceTest, APortWithoutOffloadsOffersNone) {
  network_.offloads = 0;
  auto rig = make_rig({.network = "test", .mac = kTestMac, .mrg_rxbuf = false});
  for (unsigned feature : {VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_MTU,
                           VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_MRG_RXBUF}) {
    EXPECT_EQ(rig.info().features & net_feature(feature), 0u) << feature;
  }
}

TEST_P(NetDeviceTest, SendsPacketsInOrder) {
  auto rig = make_rig();
  for (uint8_t i = 0; i < 50; ++i) {
    const auto packet = packet_of(60 + 29u * i, i);
    EXPECT_EQ(send(rig, {}, packet).written, 0u);
    const auto got = sent(rig);
    ASSERT_TRUE(got);
    EXPECT_EQ(got->packet, packet);
  }
}

TEST_P(NetDeviceTest, PassesTheHeaderOn) {
  auto rig = make_rig();
  const NetHeader header{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                         .gso_type = VIRTIO_NET_HDR_GSO_TCPV6,
                         .hdr_len = 74,
                         .gso_size = 1440,
                         .csum_start = 54,
                         .csum_offset = 16,
                         .num_buffers = 77};
  // The header shares a buffer with the packet, which is cut at odd places.
  const auto packet = packet_of(kMostPacketBytes);
  std::vector<std::byte> all(kNetHeaderBytes);
  std::memcpy(all.data(), &header, kNetHeaderBytes);
  all.insert(all.end(), packet.begin(), packet.end());
  const std::span<const std::byte> bytes(all);
  rig.driver(kTx).send(
      {readable(bytes.first(5)), readable(bytes.subspan(5, 20)), readable(bytes.subspan(25))});
  ASSERT_TRUE(rig.driver(kTx).wait_used().arrived);
  const auto got = sent(rig);
  ASSERT_TRUE(got);
  EXPECT_EQ(got->packet, packet);
  EXPECT_EQ(got->header.gso_size, 1440);
  EXPECT_EQ(got->header.csum_start, 54);
  EXPECT_EQ(got->header.num_buffers, 0);
}

TEST_P(NetDeviceTest, WhatCannotBeSentComesBackAndIsNotSent) {
  auto rig = make_rig();
  const NetHeader nonsense{.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 0xfff0};
  send(rig, nonsense, packet_of(60));
  send(rig, {}, packet_of(13));
  send(rig, {}, packet_of(kMostPacketBytes + 1));
  rig.driver(kTx).send({readable(packet_of(11))});
  EXPECT_TRUE(rig.driver(kTx).wait_used().arrived);
  rig.driver(kTx).send({writable(2000)});
  EXPECT_TRUE(rig.driver(kTx).wait_used().arrived);
  const auto good = packet_of(60, 9);
  send(rig, {}, good);
  const auto got = sent(rig);
  ASSERT_TRUE(got);
  EXPECT_EQ(got->packet, good);
  EXPECT_FALSE(rig.needs_reset());
}

TEST_P(NetDeviceTest, WaitsForAFullNetworkAndLosesNothing) {
  auto rig = make_rig();
  const auto packet = packet_of(4000);
  size_t made = 0;
  for (; made < 200; ++made) rig.driver(kTx).send({readable(NetHeader{}), readable(packet)});
  rig.settle();
  size_t got = 0;
  for (; got < made; ++got) {
    auto next = sent(rig);
    ASSERT_TRUE(next) << got;
    ASSERT_EQ(next->packet, packet);
  }
  for (size_t i = 0; i < made; ++i) ASSERT_TRUE(rig.driver(kTx).wait_used().arrived) << i;
}

TEST_P(NetDeviceTest, ReceivesIntoOneBuffer) {
  NetConfig config = test_card();
  config.mrg_rxbuf = false;
  auto rig = make_rig(config);
  for (uint8_t i = 0; i < 50; ++i) {
    const auto packet = packet_of(60 + 20u * i, i);
    network_.send({.flags = VIRTIO_NET_HDR_F_DATA_VALID, .num_buffers = 0}, packet);
    rig.driver(kRx).send({writable(12), writable(1000), writable(1000)});
    const RigUsed used = rig.driver(kRx).wait_used();
    ASSERT_TRUE(used.arrived);
    EXPECT_EQ(body(used), packet);
    EXPECT_EQ(header_of(used).num_buffers, 1);
    EXPECT_EQ(header_of(used).flags, VIRTIO_NET_HDR_F_DATA_VALID);
  }
}

TEST_P(NetDeviceTest, ADriverThatKnowsNoChecksumsIsToldNothingOfThem) {
  RigOptions wanted = options();
  wanted.refused_features = kNetGuestOffloads;
  auto rig = make_rig(test_card(), wanted);
  rig.driver(kRx).send({writable(2000)});
  network_.send({.flags = VIRTIO_NET_HDR_F_DATA_VALID}, packet_of(60));
  const RigUsed used = rig.driver(kRx).wait_used();
  ASSERT_TRUE(used.arrived);
  EXPECT_EQ(body(used), packet_of(60));
  EXPECT_EQ(header_of(used).flags, 0);
}

TEST_P(NetDeviceTest, PacketsForADriverThatKnewMoreAreDropped) {
  auto rig = make_rig();
  rig.reset_and_stay();
  network_.send({.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM}, packet_of(60, 1));
  network_.send({.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 1000}, packet_of(4000, 2));
  network_.send({}, packet_of(60, 3));
  rig.backend().set_memory(rig.memory().guest());
  rig.backend().set_features(rig.features() & ~kNetGuestOffloads);
  rig.start_queue(kRx, {.index = 0, .wrap_counter = true});
  for (int i = 0; i < 8; ++i) rig.driver(kRx).send({writable(1526)});
  const RigUsed used = rig.driver(kRx).wait_used();
  ASSERT_TRUE(used.arrived);
  EXPECT_EQ(body(used), packet_of(60, 3));
}

TEST_P(NetDeviceTest, APacketThatIsTooLongForTheBufferIsDropped) {
  NetConfig config = test_card();
  config.mrg_rxbuf = false;
  auto rig = make_rig(config);
  rig.driver(kRx).send({writable(500)});
  network_.send({}, packet_of(489));
  network_.send({}, packet_of(488, 5));
  const RigUsed used = rig.driver(kRx).wait_used();
  EXPECT_EQ(body(used), packet_of(488, 5));
  EXPECT_FALSE(rig.needs_reset());
}

TEST_P(NetDeviceTest, MergesBuffers) {
  auto rig = make_rig();
  for (size_t bytes : {60u, 1514u, 30'000u, 65'550u, 100u, 65'554u, 1000u}) {
    SCOPED_TRACE(bytes);
    const auto packet = packet_of(bytes, static_cast<uint8_t>(bytes));
    network_.send({}, packet);
    std::vector<std::byte> got;
    size_t count = 0;
    size_t expected = 1;
    while (count < expected) {
      if (rig.driver(kRx).outstanding() < 64) rig.driver(kRx).send({writable(1526)});
      auto used = rig.driver(kRx).try_used();
      if (!used) {
        rig.run_once();
        continue;
      }
      if (count == 0) {
        expected = header_of(*used).num_buffers;
        EXPECT_EQ(expected, (bytes + kNetHeaderBytes + 1525) / 1526);
      }
      got.insert(got.end(), used->bytes.begin(), used->bytes.begin() + used->written);
      ++count;
    }
    ASSERT_GE(got.size(), kNetHeaderBytes);
    got.erase(got.begin(), got.begin() + kNetHeaderBytes);
    EXPECT_EQ(got, packet);
  }
}

TEST_P(NetDeviceTest, APacketWaitsForBuffersThatComeSoon) {
  auto rig = make_rig();
  rig.driver(kRx).send({writable(100)});
  network_.send({}, packet_of(150));
  rig.settle();
  EXPECT_FALSE(rig.driver(kRx).try_used());
  rig.driver(kRx).send({writable(100)});
  const RigUsed first = rig.driver(kRx).wait_used();
  EXPECT_EQ(header_of(first).num_buffers, 2);
  EXPECT_EQ(first.written, 100u);
  EXPECT_EQ(rig.driver(kRx).wait_used().written, 62u);
}

TEST_P(NetDeviceTest, APacketForWhichNoBuffersComeIsDropped) {
  auto rig = make_rig();
  rig.driver(kRx).send({writable(100)});
  network_.send({}, packet_of(5000));
  network_.send({}, packet_of(80, 3));
  const RigUsed used = rig.driver(kRx).wait_used();
  ASSERT_TRUE(used.arrived);
  EXPECT_EQ(body(used), packet_of(80, 3));
}

TEST_P(NetDeviceTest, StopsWithBuffersHeldAndAPacketWaiting) {
  auto rig = make_rig();
  rig.driver(kRx).send({writable(100)});
  rig.driver(kRx).send({writable(100)});
  network_.send({}, packet_of(5000));
  rig.settle();
  const RingPosition at = rig.stop_queue(kRx);
  EXPECT_EQ(at.index, 0);  // none has been taken
  rig.start_queue(kRx, at);
  network_.send({}, packet_of(150, 4));
  const RigUsed first = rig.driver(kRx).wait_used();
  ASSERT_TRUE(first.arrived);
  EXPECT_EQ(header_of(first).num_buffers, 2);
  EXPECT_TRUE(rig.driver(kRx).wait_used().arrived);
  for (int i = 0; i < 5; ++i) {
    rig.driver(kRx).send({writable(200)});
    rig.restart();
    network_.send({}, packet_of(100, 8));
    EXPECT_EQ(body(rig.driver(kRx).wait_used()), packet_of(100, 8));
  }
}

TEST_P(NetDeviceTest, FiltersByAddress) {
  auto rig = make_rig();
  const MacAddress other = {2, 1, 1, 1, 1, 1};
  const MacAddress group = {1, 0, 0x5e, 0, 0, 7};
  const MacAddress all = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  for (int i = 0; i < 20; ++i) rig.driver(kRx).send({writable(200)});
  const auto arrives = [&](std::span<const std::byte> packet) {
    network_.send({}, packet);
    network_.send({}, packet_to(kTestMac));  // always does
    const RigUsed used = rig.driver(kRx).wait_used();
    rig.driver(kRx).send({writable(200)});
    if (body(used) != std::vector(packet.begin(), packet.end())) return false;
    EXPECT_TRUE(rig.driver(kRx).wait_used().arrived);
    rig.driver(kRx).send({writable(200)});
    return true;
  };
  EXPECT_TRUE(arrives(packet_to(other)));  // promiscuous at first
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, uint8_t{0}), 0);
  EXPECT_FALSE(arrives(packet_to(other)));
  EXPECT_FALSE(arrives(packet_to(group)));
  EXPECT_TRUE(arrives(packet_to(all)));
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, uint8_t{1}), 0);
  EXPECT_TRUE(arrives(packet_to(group)));
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, uint8_t{0}), 0);
  struct {
    uint32_t unicast_count = 1;
    MacAddress unicast = {2, 1, 1, 1, 1, 1};
    std::array<uint8_t, 4> multicast_count = {1, 0, 0, 0};
    MacAddress multicast = {1, 0, 0x5e, 0, 0, 7};
  } table;
  static_assert(sizeof(table) == 20);
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table), 0);
  EXPECT_TRUE(arrives(packet_to(other)));
  EXPECT_TRUE(arrives(packet_to(group)));
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOMULTI, uint8_t{1}), 0);
  EXPECT_FALSE(arrives(packet_to(group)));
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, uint8_t{1}), 0);
  EXPECT_FALSE(arrives(packet_to(all)));
  // Tags: none is wanted until it was asked for; what has none always comes.
  EXPECT_FALSE(arrives(packet_to(kTestMac, 0x8100, 0x2005)));
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, uint16_t{5}), 0);
  EXPECT_TRUE(arrives(packet_to(kTestMac, 0x8100, 0x2005)));
  EXPECT_FALSE(arrives(packet_to(kTestMac, 0x8100, 6)));
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, uint16_t{5}), 0);
  EXPECT_FALSE(arrives(packet_to(kTestMac, 0x8100, 5)));
  const MacAddress renamed = {2, 9, 9, 9, 9, 9};
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, renamed), 0);
  network_.send({}, packet_to(kTestMac));
  network_.send({}, packet_to(renamed));
  EXPECT_EQ(body(rig.driver(kRx).wait_used()), packet_to(renamed));
  // All is forgotten.
  rig.reset();
  rig.driver(kRx).send({writable(200)});
  network_.send({}, packet_to(other));
  EXPECT_EQ(body(rig.driver(kRx).wait_used()), packet_to(other));
}

TEST_P(NetDeviceTest, RefusesCommandsWhoseLengthsLie) {
  auto rig = make_rig();
  const auto refused = [&](uint8_t kind, uint8_t number, std::vector<uint8_t> data) {
    EXPECT_EQ(command(rig, kind, number, std::as_bytes(std::span(data))), VIRTIO_NET_ERR)
        << int{kind} << " " << int{number} << ": " << data.size();
  };
  for (uint8_t kind = 0; kind < 10; ++kind) {
    for (uint8_t number = 0; number < 8; ++number) {
      refused(kind, number, std::vector<uint8_t>(33, 0xff));
      refused(kind, number, std::vector<uint8_t>(3));
    }
  }
  refused(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0});
  refused(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, {1, 0, 0, 0, 1, 2, 3, 4, 5, 6});
  refused(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET,
          {0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5});
  refused(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, {0, 0, 0, 0, 0, 0, 0, 0, 0});
  refused(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, {1, 2, 3, 4, 5});
  refused(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, {0, 0x10});    // 4096
  refused(VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, {1, 0});  // not negotiated
  refused(VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
          {0, 0, 0, 0, 0, 0, 0, 0x80});
  // Without room for an answer, and without a command.
  rig.driver(kControl).send({readable(std::array<uint8_t, 3>{0, 0, 0})});
  EXPECT_EQ(rig.driver(kControl).wait_used().written, 0u);
  rig.driver(kControl).send({writable(1)});
  EXPECT_EQ(rig.driver(kControl).wait_used().last_byte(), VIRTIO_NET_ERR);
  EXPECT_FALSE(rig.needs_reset());
}

TEST_P(NetDeviceTest, ATableThatIsTooLongLetsEveryAddressThrough) {
  auto rig = make_rig();
  std::vector<uint8_t> table(4 + 65 * 6 + 4, 2);
  table[0] = 65;
  table[1] = table[2] = table[3] = 0;
  std::ranges::fill(std::span(table).last(4), uint8_t{0});
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET,
                    std::as_bytes(std::span(table))),
            VIRTIO_NET_OK);
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, uint8_t{0}), 0);
  rig.driver(kRx).send({writable(200)});
  network_.send({}, packet_to({1, 2, 3, 4, 5, 6}));  // multicast: its table has none
  network_.send({}, packet_to({2, 2, 3, 4, 5, 6}));
  EXPECT_EQ(body(rig.driver(kRx).wait_used()), packet_to({2, 2, 3, 4, 5, 6}));
}

TEST_P(NetDeviceTest, TogglesOffloads) {
  auto rig = make_rig();
  rig.settle();
  const auto eventually = [&](uint64_t offloads) {
    for (int i = 0; i < 2000 && network_.guest_offloads != offloads; ++i) {
      rig.run_once();
      if (rig.options().place != RigPlace::kInline) std::this_thread::sleep_for(milliseconds(1));
    }
    EXPECT_EQ(network_.guest_offloads, offloads);
  };
  eventually(kNetGuestOffloads);  // all that were negotiated
  const uint64_t checksum = net_feature(VIRTIO_NET_F_GUEST_CSUM);
  EXPECT_EQ(
      command(rig, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, checksum),
      VIRTIO_NET_OK);
  eventually(checksum);
  rig.reset_and_stay();
  eventually(0);
}

TEST_P(NetDeviceTest, TheLinkGoesDownAndSaysSo) {
  auto rig = make_rig();
  rig.settle();
  const unsigned seen = rig.config_changes();
  network_.ours = Fd();
  network_.theirs = Fd();
  ASSERT_TRUE(rig.wait_config_change(seen));
  EXPECT_EQ(space(rig).status, 0);
  // The VM goes on: what is sent is lost.
  EXPECT_TRUE(send(rig, {}, packet_of(60)).arrived);
  EXPECT_FALSE(rig.needs_reset());
}

TEST_P(NetDeviceTest, TheConfigurationShowsTheAddressThatTheDriverSet) {
  auto rig = make_rig();
  rig.settle();
  const MacAddress renamed = {2, 9, 9, 9, 9, 9};
  unsigned seen = rig.config_changes();
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, renamed), 0);
  ASSERT_TRUE(rig.wait_config_change(seen));
  EXPECT_EQ(space(rig).mac, renamed);
  seen = rig.config_changes();
  rig.reset_and_stay();  // the next driver finds the card's own
  ASSERT_TRUE(rig.wait_config_change(seen));
  EXPECT_EQ(space(rig).mac, kTestMac);
}

TEST_P(NetDeviceTest, SeveralPairsCarryTheirOwnPackets) {
  if (std::get<0>(GetParam()) == RigPlace::kInline) GTEST_SKIP() << "pairs have threads";
  TestNetwork second;
  TestNetwork third;
  auto rig = make_pairs({&network_, &second, &third}, options());
  EXPECT_EQ(rig.info().queue_sizes.size(), 7u);
  EXPECT_EQ(space(rig).max_virtqueue_pairs, 3);
  EXPECT_TRUE(becomes(second.used, false));
  EXPECT_EQ(use_pairs(rig, 2), 0);
  EXPECT_TRUE(becomes(second.used, true));
  EXPECT_TRUE(becomes(third.used, false));
  for (uint16_t pairs : {0, 4, 65535}) {
    EXPECT_EQ(use_pairs(rig, pairs), 1);
  }
  EXPECT_EQ(use_pairs(rig, 3), 0);
  const std::array<TestNetwork*, 3> networks{&network_, &second, &third};
  for (uint16_t pair = 0; pair < 3; ++pair) {
    const auto packet = packet_of(500, static_cast<uint8_t>(pair));
    EXPECT_TRUE(send(rig, {}, packet, static_cast<uint16_t>(2 * pair + 1)).arrived);
    std::optional<TestNetwork::Received> got;
    for (int i = 0; i < 2000 && !got; ++i) {
      got = networks[pair]->receive();
      if (!got) std::this_thread::sleep_for(milliseconds(1));
    }
    ASSERT_TRUE(got);
    EXPECT_EQ(got->packet, packet);
    networks[pair]->send({}, packet);
    rig.driver(static_cast<uint16_t>(2 * pair)).send({writable(600)});
    EXPECT_EQ(body(rig.driver(static_cast<uint16_t>(2 * pair)).wait_used()), packet);
  }
  rig.restart();
  rig.reset();
  EXPECT_TRUE(becomes(third.used, false));
}

TEST_P(NetDeviceTest, ACommandComesBackWhenEveryPairHasHeardOfIt) {
  if (std::get<0>(GetParam()) == RigPlace::kInline) GTEST_SKIP() << "pairs have threads";
  TestNetwork second;
  TestNetwork third;
  auto rig = make_pairs({&network_, &second, &third}, options());
  EXPECT_TRUE(becomes(third.used, false));
  third.delay_ms = 20;
  for (const uint16_t pairs : {3, 2, 3, 1}) {
    EXPECT_EQ(use_pairs(rig, pairs), 0);
    EXPECT_EQ(second.used, pairs > 1);
    EXPECT_EQ(third.used, pairs > 2);
  }
  // Those that come together go one after the other, and the queue stops behind what was taken.
  const std::array<uint8_t, 2> header{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET};
  for (const uint16_t pairs : {3, 1, 3}) {
    rig.driver(6).send({readable(header), readable(pairs), writable(1)});
  }
  rig.start_queue(6, rig.stop_queue(6));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(rig.driver(6).wait_used().last_byte(), VIRTIO_NET_OK);
  EXPECT_TRUE(third.used);
}

TEST_P(NetDeviceTest, WithoutAControlQueueThePairsAreUsedThatRun) {
  if (std::get<0>(GetParam()) == RigPlace::kInline) GTEST_SKIP() << "pairs have threads";
  TestNetwork second;
  TestNetwork third;
  RigOptions wanted = options();
  wanted.start = false;
  auto rig = make_pairs({&network_, &second, &third}, wanted);
  rig.backend().set_memory(rig.memory().guest());
  rig.backend().set_features(rig.features());
  const RingPosition start{.index = 0, .wrap_counter = true};
  for (uint16_t queue : {0, 1, 2, 3}) rig.start_queue(queue, start);
  EXPECT_TRUE(becomes(second.used, true));
  EXPECT_TRUE(becomes(third.used, false));
  const RingPosition at = rig.stop_queue(2);
  EXPECT_TRUE(becomes(second.used, false));
  rig.start_queue(2, at);
  EXPECT_TRUE(becomes(second.used, true));
  // From now on the control queue says it.
  rig.start_queue(6, start);
  EXPECT_TRUE(becomes(second.used, false));
  EXPECT_EQ(use_pairs(rig, 3), 0);
  EXPECT_TRUE(second.used);
  EXPECT_TRUE(third.used);
}

TEST_P(NetDeviceTest, WithoutMultiQueueTheControlQueueIsTheThird) {
  if (std::get<0>(GetParam()) == RigPlace::kInline) GTEST_SKIP() << "pairs have threads";
  TestNetwork second;
  RigOptions wanted = options();
  wanted.refused_features = net_feature(VIRTIO_NET_F_MQ);
  wanted.start = false;
  auto rig = make_pairs({&network_, &second}, wanted);
  rig.backend().set_memory(rig.memory().guest());
  rig.backend().set_features(rig.features());
  for (uint16_t queue : {0, 1, 2}) rig.start_queue(queue, {.index = 0, .wrap_counter = true});
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, uint8_t{0}), 0);
  EXPECT_EQ(command(rig, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, uint16_t{2}), 1);
}

TEST_P(NetDeviceTest, SurvivesWhatADriverMakesUp) {
  auto rig = make_rig();
  for (uint16_t queue : {kTx, kControl}) {
    EXPECT_EQ(
        play_hostile_chains(rig, {.queue = queue, .chains = 3000, .may_refuse = false}).failure,
        "");
  }
  std::atomic<bool> stop = false;
  std::thread flood([&] {
    while (!stop) {
      std::vector<std::byte> packet(200);
      (void)::send(network_.ours.get(), packet.data(), packet.size(), MSG_NOSIGNAL);
    }
  });
  EXPECT_EQ(play_hostile_chains(rig, {.queue = kRx, .chains = 3000, .answers = false}).failure, "");
  stop = true;
  flood.join();
}

}  // namespace
}  // namespace crosvm
