// Guests that break the protocol: the connection is reset or the packet dropped, and all else goes
// on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <span>

#include "base/format.h"
#include "devices/vsock/vsock_test_guest.h"
#include "virtio/device_host.h"
#include "virtio/rig/hostile_chains.h"
#include "virtio/rig/queue_bench.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

constexpr uint32_t kBoth = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;

class VsockHostileTest : public testing::TestWithParam<bool> {
 protected:
  VsockHostileTest()
      : server_(HostSocket::listen(directory_.file("a"))),
        messages_(HostSocket::listen(directory_.file("m"), SOCK_SEQPACKET)) {}
  std::string rules() const {
    return format_text("connect=[1024:{},1025/seqpacket:{}],listen=[22:{}]", directory_.file("a"),
                       directory_.file("m"), directory_.file("l"));
  }
  VsockTestGuest::Options options() const {
    return {.rig = {.place = RigPlace::kThread, .packed = GetParam()}};
  }
  /// A connection that stands, and its peer.
  std::pair<GuestSocket, HostSocket> connected(VsockTestGuest& guest, uint32_t port = 5000) {
    GuestSocket socket(guest, {.guest = port, .host = 1024});
    EXPECT_EQ(socket.connect(), VIRTIO_VSOCK_OP_RESPONSE);
    return {socket, server_.accept()};
  }
  /// The device serves as if nothing had been.
  void expect_well(VsockTestGuest& guest) {
    auto [socket, peer] = connected(guest, 60'000);
    socket.send_all("well");
    EXPECT_EQ(peer.receive(4), "well");
    socket.shut(kBoth);
    EXPECT_EQ(socket.next_event().op(), VIRTIO_VSOCK_OP_RST);
  }

  SocketDirectory directory_;
  HostSocket server_;
  HostSocket messages_;
};

TEST_P(VsockHostileTest, PacketsOfNoConnectionAreRefused) {
  VsockTestGuest guest(rules(), options());
  for (const uint16_t op :
       {VIRTIO_VSOCK_OP_INVALID, VIRTIO_VSOCK_OP_RESPONSE, VIRTIO_VSOCK_OP_SHUTDOWN,
        VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_CREDIT_UPDATE, VIRTIO_VSOCK_OP_CREDIT_REQUEST}) {
    guest.send_raw(VsockTestGuest::header(op, {.guest = 5000, .host = 1024}));
    const VsockTestPacket answer = guest.receive();
    EXPECT_EQ(answer.op(), VIRTIO_VSOCK_OP_RST) << op;
    EXPECT_EQ(answer.dst_port(), 5000u);
    EXPECT_EQ(answer.src_port(), 1024u);
  }
  guest.send_raw(VsockTestGuest::header(99, {.guest = 5000, .host = 1024}));
  EXPECT_EQ(guest.receive().op(), VIRTIO_VSOCK_OP_RST);
  guest.send_raw(VsockTestGuest::header(VIRTIO_VSOCK_OP_RST, {.guest = 5000, .host = 1024}));
  EXPECT_TRUE(guest.is_quiet());
  expect_well(guest);
}

TEST_P(VsockHostileTest, WrongContextIds) {
  VsockTestGuest guest(rules(), options());
  VsockHeader header = VsockTestGuest::header(VIRTIO_VSOCK_OP_REQUEST, {.guest = 5, .host = 1024});
  header.src_cid = 8;  // in the name of another guest
  guest.send_raw(header);
  EXPECT_TRUE(guest.is_quiet());
  for (const uint64_t cid : {uint64_t{0}, uint64_t{1}, uint64_t{3}, uint64_t{7}, UINT64_MAX}) {
    header.src_cid = 7;
    header.dst_cid = cid;
    guest.send_raw(header);
    const VsockTestPacket answer = guest.receive();
    EXPECT_EQ(answer.op(), VIRTIO_VSOCK_OP_RST);
    EXPECT_EQ(answer.src_cid(), cid);
  }
  EXPECT_FALSE(server_.wait(POLLIN, 50));
  expect_well(guest);
}

TEST_P(VsockHostileTest, WrongTypes) {
  VsockTestGuest guest(rules(), options());
  for (const uint16_t type : {0, 3, 0xffff}) {
    VsockHeader header =
        VsockTestGuest::header(VIRTIO_VSOCK_OP_REQUEST, {.guest = 5, .host = 1024});
    header.type = type;
    guest.send_raw(header);
    EXPECT_EQ(guest.receive().op(), VIRTIO_VSOCK_OP_RST) << type;
  }
  auto [socket, peer] = connected(guest);
  VsockHeader other = socket.header(VIRTIO_VSOCK_OP_RW);
  other.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
  guest.send_raw(other);
  EXPECT_EQ(socket.next().op(), VIRTIO_VSOCK_OP_RST);
  EXPECT_EQ(peer.end(), 0);
  expect_well(guest);
}

TEST_P(VsockHostileTest, AnotherRequestOfTheSamePorts) {
  VsockTestGuest guest(rules(), options());
  auto [socket, peer] = connected(guest);
  socket.send(VIRTIO_VSOCK_OP_REQUEST);
  EXPECT_EQ(socket.next().op(), VIRTIO_VSOCK_OP_RST);
  EXPECT_EQ(peer.end(), 0);
  EXPECT_TRUE(guest.is_quiet());
  expect_well(guest);
}

TEST_P(VsockHostileTest, WhatBreaksOneConnection) {
  VsockTestGuest guest(rules(), options());
  struct Case {
    const char* name;
    std::function<void(GuestSocket&)> act;
  };
  const Case cases[] = {
      {"more data than credit",
       [&](GuestSocket& socket) {
         VsockHeader header = socket.header(VIRTIO_VSOCK_OP_RW);
         const std::string much(socket.credit() + 1, 'x');
         header.len = static_cast<uint32_t>(much.size());
         guest.send_raw(header, much);
       }},
      {"a length past the chain",
       [&](GuestSocket& socket) {
         VsockHeader header = socket.header(VIRTIO_VSOCK_OP_RW);
         header.len = 100;
         guest.send_raw(header, "short");
       }},
      {"the largest length",
       [&](GuestSocket& socket) {
         VsockHeader header = socket.header(VIRTIO_VSOCK_OP_RW);
         header.len = UINT32_MAX;
         guest.send_raw(header, "short");
       }},
      {"an answer to no question",
       [](GuestSocket& socket) { socket.send(VIRTIO_VSOCK_OP_RESPONSE); }},
      {"an operation that is none", [](GuestSocket& socket) { socket.send(77); }},
      {"data after the end",
       [](GuestSocket& socket) {
         socket.shut(VIRTIO_VSOCK_SHUTDOWN_SEND);
         socket.send_packet("more");
       }},
  };
  uint32_t port = 5000;
  for (const Case& each : cases) {
    SCOPED_TRACE(each.name);
    auto [socket, peer] = connected(guest, port++);
    each.act(socket);
    EXPECT_EQ(socket.next_event().op(), VIRTIO_VSOCK_OP_RST);
    EXPECT_EQ(peer.end(), 0);
    expect_well(guest);
  }
}

TEST_P(VsockHostileTest, DataForAConnectionThatDoesNotStand) {
  VsockTestGuest guest(rules(), options());
  HostSocket program = HostSocket::connect(directory_.file("l"));
  const VsockTestPacket offer = guest.receive();
  ASSERT_EQ(offer.op(), VIRTIO_VSOCK_OP_REQUEST);
  GuestSocket socket(guest, {.guest = 22, .host = offer.header.src_port});
  socket.send_packet("early");
  EXPECT_EQ(socket.next().op(), VIRTIO_VSOCK_OP_RST);
  EXPECT_EQ(program.end(), 0);
  expect_well(guest);
}

TEST_P(VsockHostileTest, MoreThanALengthSaysIsNotLookedAt) {
  VsockTestGuest guest(rules(), options());
  auto [socket, peer] = connected(guest);
  VsockHeader header = socket.header(VIRTIO_VSOCK_OP_RW);
  header.len = 4;
  guest.send_raw(header, "goodbad");
  header.len = 0;
  guest.send_raw(header, "nothing");
  header.len = 1;
  guest.send_raw(header, "!");
  EXPECT_EQ(peer.receive(5), "good!");
}

TEST_P(VsockHostileTest, AFloodWithoutReceiveBuffersIsNotHeardFurther) {
  VsockTestGuest::Options bare = options();
  bare.receive_buffers = 0;
  VsockTestGuest guest(rules(), bare);
  const VsockHeader bad = VsockTestGuest::header(VIRTIO_VSOCK_OP_RW, {.guest = 5, .host = 6});
  const std::string bytes(reinterpret_cast<const char*>(&bad), sizeof(bad));
  RigDriver& transmit = guest.rig().driver(1);
  size_t taken = 0;
  size_t sent = 0;
  for (int round = 0; round < 20; ++round) {
    while (transmit.outstanding() < 100) {
      transmit.send({readable(bytes)});
      ++sent;
    }
    while (transmit.wait_used(std::chrono::milliseconds(20)).arrived) ++taken;
  }
  EXPECT_LE(taken, VsockConnections::kMostReplies);
  EXPECT_GE(taken, VsockConnections::kMostReplies / 2);
  // Once it has room again it is heard again.
  size_t answers = 0;
  for (int i = 0; i < 64; ++i) guest.offer_buffer();
  while (guest.receive(std::chrono::milliseconds(500)).arrived) ++answers;
  EXPECT_EQ(answers, sent);
}

TEST_P(VsockHostileTest, ChainsThatAreNoPackets) {
  VsockTestGuest guest(rules(), options());
  RigDriver& transmit = guest.rig().driver(1);
  for (const size_t size : {1, 43}) {
    const RigToken token = transmit.send({readable(std::string(size, 'x'))});
    EXPECT_TRUE(transmit.wait_used(token).arrived);
  }
  const RigToken token = transmit.send({writable(100)});
  EXPECT_TRUE(transmit.wait_used(token).arrived);
  EXPECT_TRUE(guest.is_quiet());
  expect_well(guest);
}

TEST_P(VsockHostileTest, ReceiveBuffersWithoutRoom) {
  VsockTestGuest::Options bare = options();
  bare.receive_buffers = 0;
  VsockTestGuest guest(rules(), bare);
  RigDriver& receive = guest.rig().driver(0);
  for (const size_t size : {1, 43, 44, 45}) guest.offer_buffer(size);
  receive.send({readable(std::string(100, 'x'))});
  for (int i = 0; i < 3; ++i) guest.offer_buffer();
  guest.send_raw(VsockTestGuest::header(VIRTIO_VSOCK_OP_RW, {.guest = 5, .host = 6}));
  EXPECT_EQ(receive.wait_used().written, 0u);
  EXPECT_EQ(receive.wait_used().written, 0u);
  EXPECT_EQ(receive.wait_used().written, sizeof(VsockHeader));
}

TEST_P(VsockHostileTest, BuffersForHeadersAloneHoldUpNoData) {
  VsockTestGuest::Options bare = options();
  bare.receive_buffers = 0;
  for (const uint32_t port : {1024u, 1025u}) {
    VsockTestGuest guest(rules(), bare);
    RigDriver& receive = guest.rig().driver(0);
    const bool seqpacket = port == 1025;
    guest.offer_buffer(sizeof(VsockHeader));
    guest.send_raw(
        VsockTestGuest::header(VIRTIO_VSOCK_OP_REQUEST, {.guest = 5, .host = port}, seqpacket));
    EXPECT_EQ(receive.wait_used().written, sizeof(VsockHeader));
    const HostSocket peer = (seqpacket ? messages_ : server_).accept();
    EXPECT_EQ(peer.send("a message"), 9u);
    for (const size_t more : {0, 0, 4, 0, 5}) guest.offer_buffer(sizeof(VsockHeader) + more);
    for (const size_t more : {0, 0, 4, 0, 5}) {
      const RigUsed used = receive.wait_used();
      EXPECT_EQ(used.written, more == 0 ? 0 : sizeof(VsockHeader) + more);
    }
  }
}

TEST_P(VsockHostileTest, SurvivesWhatADriverMakesUp) {
  for (const uint16_t queue : {0, 1, 2}) {
    VsockTestGuest::Options bare = options();
    bare.receive_buffers = 0;
    VsockTestGuest guest(rules(), bare);
    HostileOptions play{.queue = queue, .answers = queue == 1};
    play.fill = [](std::span<std::byte> bytes, HostileChains::Random& random) {
      VsockHeader header =
          VsockTestGuest::header(static_cast<uint16_t>(random() % 10),
                                 {.guest = static_cast<uint32_t>(random() % 3),
                                  .host = static_cast<uint32_t>(1024 + random() % 3)},
                                 random() % 3 == 0);
      header.len = static_cast<uint32_t>(random() % 200);
      header.flags = static_cast<uint32_t>(random() % 4);
      if (random() % 16 == 0) header.dst_cid = random();
      const auto whole = std::as_bytes(std::span(&header, 1));
      std::ranges::copy(whole.first(std::min(bytes.size(), whole.size())), bytes.begin());
    };
    play.chains = queue == 1 ? 200 : 300;  // as many answers as wait for the receive queue
    EXPECT_EQ(play_hostile_chains(guest.rig(), play).failure, "") << queue;
  }
}

INSTANTIATE_TEST_SUITE_P(Rings, VsockHostileTest, testing::Bool(),
                         [](const auto& packed) { return packed.param ? "Packed" : "Split"; });

/// A DeviceHost with a socket device, whose driver has the event queue alone.
class VsockStateTest : public testing::Test {
 protected:
  static std::unique_ptr<DeviceHost> make_host(EventLoop& loop, const std::string& text) {
    auto config = VsockFactory::parse(*KeyValues::parse(text));
    auto made = DeviceHost::create(
        "vsock", {.config_changed = [](std::vector<std::byte>) {}, .needs_reset = [] {}},
        [&](DeviceEvents& events) {
          return VsockFactory::create(*config, *VsockFactory::open(*config),
                                      {.loop = loop, .events = events, .rings = {}});
        });
    return std::move(*made);
  }
};

TEST_F(VsockStateTest, AnotherContextIdIsRefused) {
  auto loop = *EventLoop::create();
  auto host = make_host(*loop, "cid=7,backend=user");
  auto same = make_host(*loop, "cid=7,backend=user");
  auto other = make_host(*loop, "cid=8,backend=user");
  const auto state = host->save_state();
  ASSERT_TRUE(state.has_value());
  EXPECT_TRUE(same->load_state(*state).has_value());
  const auto refused = other->load_state(*state);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().what(), testing::HasSubstr("context ID 7"));
}

TEST_F(VsockStateTest, TheDriverHearsThatItsConnectionsAreGone) {
  auto loop = *EventLoop::create();
  auto former = make_host(*loop, "cid=7,backend=user");
  auto host = make_host(*loop, "cid=7,backend=user");
  ASSERT_TRUE(host->load_state(*former->save_state()).has_value());
  constexpr uint16_t kEventq = 2;
  QueueBench bench({.size = 16});
  VirtqueueSetup setup = bench.setup();
  host->set_memory(bench.memory().guest());
  host->set_features(bench.features() | uint64_t{1} << VIRTIO_F_VERSION_1);
  host->set_vring_num(kEventq, setup.size);
  host->set_vring_addr(kEventq, setup.addresses);
  host->set_vring_base(kEventq, {});
  host->set_vring_kick(kEventq, std::move(setup.kick));
  host->set_vring_call(kEventq, std::move(setup.call));
  host->set_vring_enable(kEventq, true);
  const auto turn = [&] {
    for (int i = 0; i < 8; ++i) (void)loop->run_once(std::chrono::milliseconds(0));
  };
  turn();  // there is no buffer for it yet
  for (const bool first : {true, false}) {
    bench.driver().send({writable(4)});
    turn();
    const auto used = bench.driver().try_used();
    ASSERT_EQ(used.has_value(), first);
    if (!first) break;
    EXPECT_EQ(used->written, 4u);
    EXPECT_EQ(used->bytes, std::vector<std::byte>(4));  // VIRTIO_VSOCK_EVENT_TRANSPORT_RESET
  }
  host->reset([] {});
  turn();
}

}  // namespace
}  // namespace crosvm
