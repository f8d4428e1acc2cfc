// Cards whose packets a back-end of vhost-user moves: another card of ours stands for passt.

#include "devices/net/vhost_user_net.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <memory>
#include <string>

#include "base/unix_address.h"
#include "devices/net/net_card.h"
#include "devices/net/net_test_port.h"
#include "devices/net/stream_dialer.h"
#include "vhost/conformance/scripted_peer.h"
#include "vhost/conformance/threads.h"
#include "virtio/rig/rig.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr uint64_t kOurs = net_feature(VIRTIO_NET_F_MAC) | net_feature(VIRTIO_NET_F_STATUS) |
                           net_feature(VIRTIO_NET_F_MTU);
constexpr MacAddress kMac = {2, 0, 0, 0, 0, 7};

class VhostUserNetTest : public testing::Test {
 protected:
  VhostUserNetTest() {
    CHECK(::mkdtemp(folder_.data()) != nullptr);
    path_ = folder_ + "/passt";
  }
  ~VhostUserNetTest() override {
    ::unlink(path_.c_str());
    ::rmdir(folder_.c_str());
  }
  NetConfig config() const { return {.network = path_, .mac = kMac, .mtu = 1400}; }

  void listen() {
    ::unlink(path_.c_str());
    listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = *UnixAddress::of(path_);
    ASSERT_EQ(::bind(listener_.get(), address.get(), address.size()), 0);
    ASSERT_EQ(::listen(listener_.get(), 1), 0);
  }
  /// A back-end for whoever connects, on a network of the test.
  void serve() {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(socket);
    network_.emplace();
    server_.emplace(std::move(socket), std::make_unique<OpenedTestCard>(
                                           test_card(), std::vector<TestNetwork*>{&*network_}));
  }
  void go() {
    listener_ = {};
    ::unlink(path_.c_str());
    server_.reset();
  }
  Rig card(const NetConfig& config) {
    listen();
    Fd socket = *connect_stream(path_);
    serve();
    auto made = run_vhost_user_net(control_.loop(), "net0", config, std::move(socket));
    if (!made) ADD_FAILURE() << made.error().what();
    CHECK(made.has_value());
    return Rig::attach(*std::move(made));
  }
  static NetConfigSpace space(const Rig& rig) {
    const auto bytes = rig.config();
    NetConfigSpace space;
    EXPECT_EQ(bytes.size(), sizeof(space));
    std::memcpy(&space, bytes.data(), std::min(bytes.size(), sizeof(space)));
    return space;
  }

  static std::vector<std::byte> packet(uint8_t seed) {
    return std::vector<std::byte>(100, std::byte(seed));
  }
  /// A packet each way.
  void carry(Rig& rig, uint8_t seed) {
    const RigToken sent = rig.driver(1).send({readable(NetHeader{}), readable(packet(seed))});
    ASSERT_TRUE(rig.driver(1).wait_used(sent).arrived);
    const auto received = network_->receive();
    ASSERT_TRUE(received);
    EXPECT_EQ(received->packet, packet(seed));
    const RigToken room = rig.driver(0).send({writable(1600)});
    network_->send({}, packet(static_cast<uint8_t>(seed + 1)));
    const RigUsed used = rig.driver(0).wait_used(room);
    ASSERT_EQ(used.written, kNetHeaderBytes + packet(0).size());
    EXPECT_TRUE(std::ranges::equal(packet(static_cast<uint8_t>(seed + 1)),
                                   std::span(used.bytes).subspan(kNetHeaderBytes, 100)));
  }
  /// The link changes. Returns whether it is up then.
  static bool link_changes(Rig& rig, unsigned seen) {
    EXPECT_TRUE(rig.wait_config_change(seen));
    return (space(rig).status & VIRTIO_NET_S_LINK_UP) != 0;
  }

  LoopThread control_;
  std::string folder_ = testing::TempDir() + "card.XXXXXX";
  std::string path_;
  Fd listener_;
  std::optional<TestNetwork> network_;
  std::optional<EchoServer> server_;
};

TEST_F(VhostUserNetTest, AddressAndMtuAreOursAndPacketsTheBackEnds) {
  Rig rig = card(config());
  EXPECT_EQ(rig.info().features & kOurs, kOurs);
  EXPECT_EQ(rig.info().features & net_feature(VIRTIO_NET_F_CTRL_VQ), 0U);
  EXPECT_NE(rig.info().features & net_feature(VIRTIO_NET_F_MRG_RXBUF), 0U);
  EXPECT_EQ(rig.info().queue_sizes, (std::vector<uint16_t>{256, 256}));
  const NetConfigSpace seen = space(rig);
  EXPECT_EQ(seen.mac, kMac);
  EXPECT_EQ(seen.status, VIRTIO_NET_S_LINK_UP);
  EXPECT_EQ(seen.max_virtqueue_pairs, 1);
  EXPECT_EQ(seen.mtu, 1400);
  carry(rig, 1);
}

TEST_F(VhostUserNetTest, WhatIsNotWantedIsNotOffered) {
  NetConfig plain = config();
  plain.mtu = 0;
  plain.mrg_rxbuf = false;
  plain.packed_queue = true;
  Rig rig = card(plain);
  for (const unsigned feature : {VIRTIO_NET_F_MTU, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_F_RING_PACKED}) {
    EXPECT_EQ(rig.info().features & net_feature(feature), 0U) << feature;
  }
  carry(rig, 1);
}

TEST_F(VhostUserNetTest, TheLinkGoesAndComesWithTheBackEnd) {
  Rig rig = card(config());
  for (uint8_t round = 0; round < 2; ++round) {
    carry(rig, static_cast<uint8_t>(10 * round));
    unsigned seen = rig.config_changes();
    go();
    EXPECT_FALSE(link_changes(rig, seen));
    seen = rig.config_changes();
    listen();
    serve();
    EXPECT_TRUE(link_changes(rig, seen));
    EXPECT_EQ(space(rig).mac, kMac);
  }
  carry(rig, 30);
  EXPECT_FALSE(rig.needs_reset());
}

/// Somebody else listens there for a while, who knows nothing of vhost-user.
TEST_F(VhostUserNetTest, WhoDoesNotSpeakItIsNoSuccessor) {
  Rig rig = card(config());
  unsigned seen = rig.config_changes();
  go();
  EXPECT_FALSE(link_changes(rig, seen));
  listen();
  {
    const Fd stranger(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  seen = rig.config_changes();
  serve();
  EXPECT_TRUE(link_changes(rig, seen));
  carry(rig, 1);
}

/// It breaks the protocol, and may still write to the rings.
TEST_F(VhostUserNetTest, ADriverWaitsForABackEndThatMayBeAtWork) {
  listen();
  Fd socket = *connect_stream(path_);
  ScriptedPeer::Script script;
  script.instead = [](ScriptedPeer& peer, const VhostUserMessage& message) {
    if (message.request != VHOST_USER_GET_VRING_BASE) return false;
    peer.send_bytes(std::vector<std::byte>(64, std::byte{0xff}));
    return true;
  };
  const ScriptedPeer peer(Fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)), script);
  auto made = run_vhost_user_net(control_.loop(), "net0", config(), std::move(socket));
  ASSERT_TRUE(made) << made.error().what();
  const RigMemory memory;
  DeviceBackend& card = **made;
  card.set_features(net_feature(VIRTIO_F_VERSION_1));
  card.set_memory(memory.guest());
  card.set_vring_num(0, 16);
  card.set_vring_addr(0, {GuestAddress{0x1000}, GuestAddress{0x2000}, GuestAddress{0x3000}});
  card.set_vring_kick(0, std::move(*make_eventfd()));
  card.set_vring_enable(0, true);
  std::promise<void> reset;
  auto done = reset.get_future();
  card.get_vring_base(0, [](RingPosition) {});
  card.reset([&] { reset.set_value(); });
  EXPECT_EQ(done.wait_for(100ms), std::future_status::timeout);
  serve();
  EXPECT_EQ(done.wait_for(30s), std::future_status::ready);
}

TEST_F(VhostUserNetTest, SaysWhatMayBeWrong) {
  listen();
  Fd socket = *connect_stream(path_);
  {
    const Fd stranger(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  auto made = run_vhost_user_net(control_.loop(), "net0", config(), std::move(socket));
  ASSERT_FALSE(made.has_value());
  EXPECT_THAT(made.error().what(), HasSubstr("net0: "));
  EXPECT_THAT(made.error().what(), HasSubstr(path_ + "; was passt started with --vhost-user?"));
}

}  // namespace
}  // namespace crosvm
