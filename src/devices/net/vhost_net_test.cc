// Cards whose packets the kernel moves, in a network namespace of the test's own.

#include "devices/net/vhost_net.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "devices/net/net_abi.h"
#include "devices/net/net_card.h"
#include "devices/net/net_namespace.h"
#include "vhost/conformance/threads.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

constexpr const char* kVhostNet = "/dev/vhost-net";

class VhostNetTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!namespace_.missing().empty()) GTEST_SKIP() << namespace_.missing();
    if (::access(kVhostNet, R_OK | W_OK) != 0) {
      GTEST_SKIP() << kVhostNet << ": " << std::strerror(errno);
    }
    loop_.emplace();
  }
  template <class T>
  static T must(Result<T> result) {
    if (!result) ADD_FAILURE() << result.error().what();
    CHECK(result.has_value());
    return std::move(*result);
  }
  Rig card(uint16_t pairs, RigOptions options = {}) {
    Tap tap = must(attach_tap("mine", pairs));
    const NetConfig config{
        .network = tap.name, .mac = {2, 0, 0, 0, 0, 9}, .vq_pairs = pairs, .mtu = tap.mtu};
    auto resources = must(open_vhost_net(kVhostNet, std::move(tap)));
    return Rig::attach(must(run_vhost_net(loop_->loop(), "net0", config, std::move(resources))),
                       options);
  }
  static int command(Rig& rig, uint16_t queue, std::initializer_list<uint8_t> bytes) {
    rig.driver(queue).send(
        {readable(std::as_bytes(std::span(bytes.begin(), bytes.size()))), writable(1)});
    const RigUsed used = rig.driver(queue).wait_used();
    return used.arrived ? used.last_byte() : -1;
  }
  static void carry(Rig& rig, uint16_t pair, uint8_t number) {
    const PacketTap host("mine");
    const auto tx = static_cast<uint16_t>(2 * pair + 1);
    rig.driver(tx).send({readable(NetHeader{}), readable(PacketTap::packet(number))});
    EXPECT_TRUE(rig.driver(tx).wait_used().arrived);
    EXPECT_EQ(host.next(), PacketTap::packet(number));
  }
  static void receive(Rig& rig) {
    const PacketTap host("mine");
    host.send(PacketTap::packet(200));
    std::vector<std::byte> got;
    while (got != PacketTap::packet(200)) {
      rig.driver(0).send({writable(1526)});
      const RigUsed used = rig.driver(0).wait_used();
      ASSERT_TRUE(used.arrived);
      ASSERT_GE(used.written, kNetHeaderBytes);
      got.assign(used.bytes.begin() + kNetHeaderBytes, used.bytes.begin() + used.written);
    }
  }

  TestNamespace namespace_;
  std::optional<LoopThread> loop_;  // a thread of that namespace
};

TEST_F(VhostNetTest, CarriesPacketsAndTakesCommands) {
  auto rig = card(1);
  EXPECT_EQ(rig.info().queue_sizes.size(), 3u);
  for (unsigned feature :
       {VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_MTU, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_MAC}) {
    EXPECT_NE(rig.info().features & net_feature(feature), 0u) << feature;
  }
  for (uint8_t round = 0; round < 5; ++round) {
    carry(rig, 0, round);
    receive(rig);
    EXPECT_EQ(command(rig, 2, {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0}), 0);
    EXPECT_EQ(command(rig, 2, {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC}), 1);
    EXPECT_EQ(command(rig, 2, {VIRTIO_NET_CTRL_MQ, 0, 1, 0}), 1);
    if (round % 2 == 0) {
      rig.restart();
    } else {
      rig.reset();
    }
  }
}

TEST_F(VhostNetTest, SeveralPairsAreUsedAsTheDriverSays) {
  auto rig = card(3);
  for (const uint8_t pairs : {3, 1, 2, 3}) {
    EXPECT_EQ(command(rig, 6, {VIRTIO_NET_CTRL_MQ, 0, pairs, 0}), 0);
    for (uint16_t pair = 0; pair < pairs; ++pair) {
      carry(rig, pair, static_cast<uint8_t>(10 * pairs + pair));
    }
  }
  EXPECT_EQ(command(rig, 6, {VIRTIO_NET_CTRL_MQ, 0, 4, 0}), 1);
  EXPECT_EQ(command(rig, 6, {VIRTIO_NET_CTRL_MQ, 0, 1, 0}), 0);
  // What was in the others' rings comes back all the same.
  for (const uint16_t queue : {3, 5}) {
    rig.driver(queue).send({readable(NetHeader{}), readable(PacketTap::packet(3))});
    EXPECT_TRUE(rig.driver(queue).wait_used().arrived) << queue;
  }
  receive(rig);
}

TEST_F(VhostNetTest, WithoutMultiQueueTheControlQueueIsTheThird) {
  auto rig = card(2, {.refused_features = net_feature(VIRTIO_NET_F_MQ), .start = false});
  rig.backend().set_memory(rig.memory().guest());
  rig.backend().set_features(rig.features());
  for (uint16_t queue : {0, 1, 2}) rig.start_queue(queue, {.index = 0, .wrap_counter = true});
  EXPECT_EQ(command(rig, 2, {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0}), 0);
  carry(rig, 0, 5);
}

TEST_F(VhostNetTest, ATapThatVanishesIsALinkThatStaysDown) {
  auto rig = card(1);
  carry(rig, 0, 1);
  const unsigned seen = rig.config_changes();
  ASSERT_TRUE(delete_interface("mine"));
  // The kernel fails it, and nobody has told the driver yet.
  rig.driver(1).send({readable(NetHeader{}), readable(PacketTap::packet(2))});
  ASSERT_TRUE(rig.wait_config_change(seen));
  NetConfigSpace space;
  std::memcpy(&space, rig.config().data(), sizeof(space));
  EXPECT_EQ(space.status, 0);
  EXPECT_FALSE(rig.needs_reset());
  // The next driver finds a card that answers.
  rig.reset();
  EXPECT_EQ(command(rig, 2, {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 0}), 0);
  EXPECT_FALSE(rig.needs_reset());
}

TEST_F(VhostNetTest, ADriverGetsNoPacketsOfTheOneBefore) {
  auto rig = card(1);
  carry(rig, 0, 1);
  const PacketTap host("mine");
  host.send(PacketTap::packet(100));  // there are no buffers for it
  rig.reset();
  host.send(PacketTap::packet(101));
  std::vector<std::byte> got;
  while (got != PacketTap::packet(101)) {
    rig.driver(0).send({writable(1526)});
    const RigUsed used = rig.driver(0).wait_used();
    ASSERT_TRUE(used.arrived);
    got.assign(used.bytes.begin() + kNetHeaderBytes, used.bytes.begin() + used.written);
    EXPECT_NE(got, PacketTap::packet(100));
  }
}

TEST_F(VhostNetTest, TheConfigurationShowsWhatCommandsDid) {
  auto rig = card(1);
  const auto space = [&] {
    NetConfigSpace space;
    std::memcpy(&space, rig.config().data(), sizeof(space));
    return space;
  };
  unsigned seen = rig.config_changes();
  const auto changes = [&] { return rig.wait_config_change(seen++); };
  EXPECT_EQ(command(rig, 2, {VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, 2, 1, 1, 1, 1, 1}),
            0);
  ASSERT_TRUE(changes());
  EXPECT_EQ(space().mac, (MacAddress{2, 1, 1, 1, 1, 1}));
  // Whether the interface is up is looked at now and then.
  ASSERT_TRUE(set_interface_up("mine", false));
  ASSERT_TRUE(changes());
  ASSERT_TRUE(set_interface_up("mine", true));
  ASSERT_TRUE(changes());
  EXPECT_EQ(space().status, VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
  EXPECT_EQ(command(rig, 2, {VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK}), 0);
  ASSERT_TRUE(changes());
  EXPECT_EQ(space().status, VIRTIO_NET_S_LINK_UP);
}

TEST_F(VhostNetTest, WhatIsNoSuchDeviceIsRefused) {
  auto none = open_vhost_net("/nowhere", must(attach_tap("mine", 1)));
  ASSERT_FALSE(none.has_value());
  EXPECT_NE(none.error().what().find("/nowhere"), std::string::npos);
  auto other = open_vhost_net("/dev/null", must(attach_tap("mine", 1)));
  ASSERT_FALSE(other.has_value());
  EXPECT_NE(other.error().what().find("give /dev/vhost-net"), std::string::npos);
}

}  // namespace
}  // namespace crosvm
