#include "vhost/vhost_user_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>

#include "vhost/vhost_test_frontend.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

constexpr uint64_t kVersion1 = uint64_t{1} << VIRTIO_F_VERSION_1;
constexpr uint64_t kPacked = uint64_t{1} << VIRTIO_F_RING_PACKED;
constexpr uint64_t kRing =
    kVersion1 | uint64_t{1} << VIRTIO_RING_F_EVENT_IDX | uint64_t{1} << VIRTIO_RING_F_INDIRECT_DESC;

EchoOptions options(EchoMode mode = EchoMode::kAtOnce, EchoControl* control = nullptr) {
  return {.mode = mode, .queue_sizes = {16, 16}, .control = control};
}

int next_descriptor() { return Fd(::dup(0)).get(); }

VhostUserVringState state(uint32_t index, uint32_t num = 0) { return {.index = index, .num = num}; }

class VhostUserServerTest : public testing::TestWithParam<bool> {
 protected:
  bool packed() const { return GetParam(); }
  uint64_t features() const { return kRing | (packed() ? kPacked : 0); }
  uint32_t first_base() const { return packed() ? 0x80008000 : 0; }
  void start(VhostTestFrontend& frontend, bool bit30 = true) {
    frontend.negotiate(features(), bit30);
    frontend.send(frontend.memory_table());
    for (uint16_t index = 0; index < 2; ++index) {
      frontend.add_driver(packed());
      frontend.start_ring(index, first_base(), bit30);
    }
  }
  static void expect_echo(RigDriver& driver, std::string_view text = "hello") {
    driver.send({readable(text), writable(text.size())});
    const RigUsed used = driver.wait_used();
    ASSERT_TRUE(used.arrived);
    EXPECT_EQ(used.written, text.size());
    EXPECT_EQ(used.byte(0), text[0]);
  }
};

INSTANTIATE_TEST_SUITE_P(Rings, VhostUserServerTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Packed" : "Split"; });

TEST_P(VhostUserServerTest, ServesADevice) {
  VhostTestFrontend frontend(options());
  start(frontend);
  for (int i = 0; i < 40; ++i) {
    expect_echo(frontend.driver(0));
    expect_echo(frontend.driver(1), "world");
  }
}

TEST_P(VhostUserServerTest, StopsAndGoesOn) {
  VhostTestFrontend frontend(options());
  start(frontend);
  for (int i = 0; i < 21; ++i) expect_echo(frontend.driver(0));
  frontend.send(VHOST_USER_GET_VRING_BASE, state(0));
  const auto answer = frontend.receive();
  ASSERT_TRUE(answer && answer->is_reply());
  const auto base = answer->payload_as<VhostUserVringState>();
  ASSERT_TRUE(base);
  EXPECT_EQ(base->index, 0u);
  // Two descriptors each, in an indirect table: one element, sixteen make a lap.
  EXPECT_EQ(base->num, packed() ? 0x00050005u : 21u);
  frontend.driver(0).send({readable("x"), writable(1)});
  frontend.turn();
  EXPECT_FALSE(frontend.driver(0).try_used());
  frontend.start_ring(0, base->num);
  EXPECT_TRUE(frontend.driver(0).wait_used().arrived);
  expect_echo(frontend.driver(0));
}

TEST_P(VhostUserServerTest, RingsWaitForEnableOnlyWithBit30) {
  VhostTestFrontend with(options());
  with.negotiate(features());
  with.send(with.memory_table());
  with.add_driver(packed());
  with.start_ring(0, first_base(), false);
  with.driver(0).send({readable("x"), writable(1)});
  with.turn(40);
  EXPECT_FALSE(with.driver(0).try_used());
  EXPECT_TRUE(with.ack(VHOST_USER_SET_VRING_ENABLE, state(0, 1)));
  EXPECT_TRUE(with.driver(0).wait_used().arrived);

  VhostTestFrontend without(options());
  start(without, false);
  expect_echo(without.driver(0));
  EXPECT_FALSE(without.ack(VHOST_USER_SET_VRING_ENABLE, state(0, 0)));
}

TEST_P(VhostUserServerTest, AnswersStayInOrderWhileARingStops) {
  EchoControl control;
  VhostTestFrontend frontend(options(EchoMode::kHeld, &control));
  start(frontend);
  frontend.driver(0).send({readable("x"), writable(1)});
  frontend.turn();
  frontend.send(VHOST_USER_GET_VRING_BASE, state(0));
  frontend.send(vhost_user_message(VHOST_USER_GET_QUEUE_NUM));
  VhostUserMessage enable = vhost_user_message(VHOST_USER_SET_VRING_ENABLE, state(1, 0));
  enable.flags = kVhostUserNeedReply;
  frontend.send(std::move(enable));
  EXPECT_FALSE(frontend.receive());
  control.release();
  EXPECT_TRUE(frontend.driver(0).wait_used().arrived);
  for (const uint32_t request :
       {VHOST_USER_GET_VRING_BASE, VHOST_USER_GET_QUEUE_NUM, VHOST_USER_SET_VRING_ENABLE}) {
    const auto answer = frontend.receive();
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->request, request);
    EXPECT_TRUE(answer->is_reply());
  }
}

TEST_P(VhostUserServerTest, ARequestInFlightOutlivesItsMemoryTable) {
  EchoControl control;
  VhostTestFrontend frontend(options(EchoMode::kHeld, &control));
  start(frontend);
  frontend.driver(0).send({readable("x"), writable(1)});
  frontend.turn();
  VhostUserMessage table = frontend.memory_table();
  table.flags = kVhostUserNeedReply;
  frontend.send(std::move(table));
  EXPECT_FALSE(frontend.receive());
  control.release();
  const auto answer = frontend.receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->payload_as<uint64_t>(), 0u);
  EXPECT_TRUE(frontend.driver(0).wait_used().arrived);
  expect_echo(frontend.driver(0));
}

TEST_P(VhostUserServerTest, ABrokenRingNeedsAResetAndGetsIt) {
  VhostTestFrontend frontend(options());
  start(frontend);
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  VhostUserChannel back{Fd(pair[0])};
  VhostUserMessage message = vhost_user_message(VHOST_USER_SET_BACKEND_REQ_FD);
  message.fds.emplace_back(pair[1]);
  EXPECT_TRUE(frontend.ack(std::move(message)));
  const Fd error = VhostTestFrontend::must(make_eventfd());
  EXPECT_TRUE(frontend.ack(VHOST_USER_SET_VRING_ERR, uint64_t{0}, VhostTestFrontend::copy(error)));
  EXPECT_TRUE(frontend.ack(VHOST_USER_SET_STATUS, uint64_t{0xf}));
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_STATUS), 0xfu);

  if (packed()) {
    PackedLayout& ring = *frontend.driver(0).ring().packed();
    ring.set_body(0, UINT64_MAX - 3, 16, 0);
    ring.set_flags(0, PackedLayout::available(true));
  } else {
    frontend.driver(0).ring().split()->set_avail_idx(99);
  }
  frontend.driver(0).kick_anyway();
  frontend.turn();
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_STATUS), 0x4fu);
  EXPECT_EQ(drain_eventfd(error), 1u);
  const auto change = back.receive();
  ASSERT_TRUE(change && *change);
  EXPECT_EQ((*change)->request, VHOST_USER_BACKEND_CONFIG_CHANGE_MSG);
  EXPECT_FALSE((*change)->needs_reply());

  EXPECT_TRUE(frontend.ack(vhost_user_message(VHOST_USER_RESET_DEVICE)));
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_STATUS), 0u);
  frontend.driver(1).restart({});
  frontend.send(VHOST_USER_SET_FEATURES, features() | vhost_user_bit(kVhostUserProtocolFeatures));
  frontend.start_ring(1, first_base());
  expect_echo(frontend.driver(1));
}

TEST_P(VhostUserServerTest, ReconnectsAfterADisconnectAtEveryMessage) {
  VhostTestFrontend frontend(options());
  frontend.add_driver(packed());
  for (int messages = 0; messages < 12; ++messages) {
    int left = messages;
    const auto next = [&] { return left-- > 0; };
    RigDriver& driver = frontend.driver(0);
    driver.restart({});
    if (next()) frontend.send(vhost_user_message(VHOST_USER_SET_OWNER));
    if (next()) {
      frontend.send(VHOST_USER_SET_FEATURES,
                    features() | vhost_user_bit(kVhostUserProtocolFeatures));
    }
    if (next()) frontend.send(frontend.memory_table());
    if (next()) frontend.send(VHOST_USER_SET_VRING_NUM, state(0, 16));
    if (next()) frontend.send(VHOST_USER_SET_VRING_ADDR, frontend.addresses(0));
    if (next()) frontend.send(VHOST_USER_SET_VRING_BASE, state(0, first_base()));
    if (next()) {
      frontend.send(VHOST_USER_SET_VRING_KICK, uint64_t{0},
                    VhostTestFrontend::copy(driver.kick_descriptor()));
    }
    if (next()) {
      frontend.send(VHOST_USER_SET_VRING_CALL, uint64_t{0},
                    VhostTestFrontend::copy(driver.call_descriptor()));
    }
    if (next()) frontend.send(VHOST_USER_SET_VRING_ENABLE, state(0, 1));
    if (next()) expect_echo(driver);
    frontend.turn();
    frontend.disconnect();
    frontend.turn();
    ASSERT_EQ(frontend.gone().size(), static_cast<size_t>(messages) + 1);
    EXPECT_EQ(frontend.gone().back().code(), std::errc::not_connected);
    frontend.connect();
  }
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_QUEUE_NUM), 2u);
}

TEST_P(VhostUserServerTest, ANewFrontEndWaitsUntilTheOldOneIsDone) {
  EchoControl control;
  VhostTestFrontend frontend(options(EchoMode::kHeld, &control));
  start(frontend);
  frontend.driver(0).send({readable("x"), writable(1)});
  frontend.turn();
  frontend.disconnect();
  frontend.turn();
  EXPECT_EQ(frontend.gone().size(), 1u);
  frontend.connect();
  frontend.send(vhost_user_message(VHOST_USER_GET_FEATURES));
  EXPECT_FALSE(frontend.receive());  // a request of the old one is still being served
  control.release();
  EXPECT_TRUE(frontend.receive());
}

TEST(VhostUserServer, OffersWhatItImplements) {
  VhostTestFrontend frontend(options());
  const auto features = frontend.ask(VHOST_USER_GET_FEATURES);
  ASSERT_TRUE(features);
  EXPECT_EQ(*features, kRing | kPacked | uint64_t{1} << 30 | uint64_t{1} << 26);
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_QUEUE_NUM), 2u);
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_MAX_MEM_SLOTS), 509u);
  const auto protocol = frontend.ask(VHOST_USER_GET_PROTOCOL_FEATURES);
  ASSERT_TRUE(protocol);
  for (const unsigned bit : {0, 1, 3, 5, 9, 10, 13, 15, 16})
    EXPECT_TRUE(*protocol >> bit & 1) << bit;
}

TEST(VhostUserServer, AcknowledgesOnlyWhatAsksForIt) {
  VhostTestFrontend frontend(options());
  VhostUserMessage asking = vhost_user_message(VHOST_USER_SET_OWNER);
  asking.flags = kVhostUserNeedReply;
  frontend.send(std::move(asking));
  EXPECT_FALSE(frontend.receive());  // REPLY_ACK was not negotiated
  frontend.send(VHOST_USER_SET_PROTOCOL_FEATURES, vhost_user_bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
  frontend.send(VHOST_USER_SET_FEATURES, kRing);
  EXPECT_FALSE(frontend.receive());
  EXPECT_TRUE(frontend.ack(VHOST_USER_SET_FEATURES, kRing));
  EXPECT_TRUE(frontend.ack(vhost_user_message(VHOST_USER_RESET_OWNER)));
  EXPECT_FALSE(frontend.ack(vhost_user_message(VHOST_USER_SET_OWNER)));  // twice
  EXPECT_FALSE(frontend.ack(VHOST_USER_SET_FEATURES, uint64_t{1} << 40));
  EXPECT_FALSE(frontend.ack(VHOST_USER_SET_PROTOCOL_FEATURES, UINT64_MAX));
  // One with an answer of its own gives that alone.
  VhostUserMessage both = vhost_user_message(VHOST_USER_GET_QUEUE_NUM);
  both.flags = kVhostUserNeedReply;
  frontend.send(std::move(both));
  const auto answer = frontend.receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->payload_as<uint64_t>(), 2u);
  EXPECT_FALSE(frontend.receive());
}

TEST(VhostUserServer, UnknownRequestsAreRefusedAndTheConnectionLives) {
  VhostTestFrontend frontend(options());
  frontend.negotiate(kRing);
  for (const uint32_t request : {0u, 7u, 19u, 20u, 22u, 23u, 26u, 27u, 28u, 29u, 30u, 33u, 35u, 41u,
                                 44u, 45u, 1000u, UINT32_MAX}) {
    EXPECT_FALSE(frontend.ack(vhost_user_message(request))) << request;
    frontend.send(vhost_user_message(request));
    EXPECT_FALSE(frontend.receive()) << request;
  }
  VhostUserMessage answer = vhost_user_message(VHOST_USER_GET_FEATURES);
  answer.flags = kVhostUserReply;  // to nothing
  frontend.send(std::move(answer));
  EXPECT_TRUE(frontend.receive());
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_QUEUE_NUM), 2u);
  EXPECT_TRUE(frontend.gone().empty());
}

TEST(VhostUserServer, ReadsAndWritesTheConfiguration) {
  VhostTestFrontend frontend(options());
  frontend.negotiate(kRing);
  std::array<int, 2> pair{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()), 0);
  VhostUserChannel back{Fd(pair[0])};
  VhostUserMessage socket = vhost_user_message(VHOST_USER_SET_BACKEND_REQ_FD);
  socket.fds.emplace_back(pair[1]);
  EXPECT_TRUE(frontend.ack(std::move(socket)));

  const auto write = [&](uint32_t offset, uint32_t says, uint32_t bytes) {
    VhostUserMessage message = vhost_user_message(
        VHOST_USER_SET_CONFIG, VhostUserConfigHeader{.offset = offset, .size = says, .flags = 0});
    message.payload.resize(message.payload.size() + bytes, std::byte{7});
    return frontend.ack(std::move(message));
  };
  EXPECT_TRUE(write(6, 2, 2));
  const auto change = back.receive();
  ASSERT_TRUE(change && *change);
  EXPECT_EQ((*change)->request, VHOST_USER_BACKEND_CONFIG_CHANGE_MSG);
  EXPECT_FALSE(write(7, 2, 2));
  EXPECT_FALSE(write(0, 3, 2));
  EXPECT_FALSE(write(0, UINT32_MAX, 2));
  EXPECT_FALSE(write(UINT32_MAX, 2, 2));

  const auto read = [&](uint32_t offset, uint32_t size) {
    VhostUserMessage message = vhost_user_message(
        VHOST_USER_GET_CONFIG, VhostUserConfigHeader{.offset = offset, .size = size, .flags = 0});
    message.payload.resize(message.payload.size() + (size <= 256 ? size : 0));
    frontend.send(std::move(message));
    auto answer = frontend.receive();
    CHECK(answer);
    return std::move(answer->payload);
  };
  const auto bytes = read(4, 8);  // four of them past the end
  ASSERT_EQ(bytes.size(), 20u);
  EXPECT_EQ(bytes[12], std::byte{0});
  EXPECT_EQ(bytes[14], std::byte{7});
  EXPECT_EQ(bytes[15], std::byte{7});
  EXPECT_EQ(bytes[16], std::byte{0});
  EXPECT_EQ(read(0, 256).size(), 268u);
  EXPECT_TRUE(read(0, 257).empty());
  EXPECT_TRUE(read(UINT32_MAX, 8).empty());
}

TEST(VhostUserServer, WrongPayloadsAndDescriptorsChangeNothing) {
  const int before = next_descriptor();
  {
    VhostTestFrontend frontend(options());
    frontend.negotiate(kRing);
    // Every request with every size, with no descriptor and with eight.
    for (uint32_t request = 0; request < 50; ++request) {
      for (const size_t size : {0, 1, 4, 7, 8, 9, 12, 16, 20, 24, 39, 40, 41, 264, 4096}) {
        for (const size_t fds : {0, 1, 8}) {
          for (const std::byte fill : {std::byte{0}, std::byte{0xff}}) {
            VhostUserMessage message = vhost_user_message(request);
            message.payload.resize(size, fill);
            for (size_t i = 0; i < fds; ++i) {
              message.fds.push_back(VhostTestFrontend::must(make_eventfd()));
            }
            frontend.send(std::move(message));
            while (frontend.receive(2)) {
            }
          }
        }
      }
    }
    ASSERT_TRUE(frontend.gone().empty());
    EXPECT_EQ(frontend.ask(VHOST_USER_GET_QUEUE_NUM), 2u);
    // Some of that was well-formed, and took away what had been negotiated.
    frontend.send(VHOST_USER_SET_PROTOCOL_FEATURES,
                  vhost_user_bit(VHOST_USER_PROTOCOL_F_REPLY_ACK));
    frontend.send(VHOST_USER_SET_FEATURES, kRing | vhost_user_bit(kVhostUserProtocolFeatures));
    EXPECT_FALSE(frontend.ack(VHOST_USER_SET_VRING_KICK, kVhostUserVringNoFd));
    EXPECT_FALSE(frontend.ack(VHOST_USER_SET_VRING_KICK, uint64_t{2},
                              VhostTestFrontend::must(make_eventfd())));
    EXPECT_FALSE(frontend.ack(VHOST_USER_SET_VRING_NUM, state(0, 0)));
    EXPECT_FALSE(frontend.ack(VHOST_USER_SET_VRING_NUM, state(0, 17)));
    EXPECT_FALSE(frontend.ack(VHOST_USER_SET_VRING_NUM, state(0, 65536 + 16)));
    EXPECT_FALSE(frontend.ack(VHOST_USER_SET_VRING_NUM, state(65536, 16)));
    EXPECT_FALSE(frontend.ack(VHOST_USER_SET_VRING_ENABLE, state(0, 2)));
  }
  EXPECT_EQ(next_descriptor(), before);
}

TEST(VhostUserServer, MemoryTablesThatLieAreRefused) {
  VhostTestFrontend frontend(options());
  frontend.negotiate(kRing);
  const auto regions = frontend.memory().guest().regions();
  const auto add = [&](VhostUserMemoryRegion region, Fd fd) {
    return frontend.ack(VHOST_USER_ADD_MEM_REG,
                        VhostUserSingleRegion{.padding = 0, .region = region}, std::move(fd));
  };
  const auto memfd = [&] { return VhostTestFrontend::copy(frontend.memory().guest().memfd()); };
  VhostUserMemoryRegion region = frontend.describe(regions[0]);
  region.size = uint64_t{1} << 40;
  EXPECT_FALSE(add(region, memfd()));
  region = frontend.describe(regions[0]);
  region.mmap_offset = UINT64_MAX - 4095;
  EXPECT_FALSE(add(region, memfd()));
  EXPECT_FALSE(add(frontend.describe(regions[0]), {}));
  EXPECT_FALSE(add(frontend.describe(regions[0]), Fd(::open("/dev/zero", O_RDWR | O_CLOEXEC))));
  EXPECT_TRUE(add(frontend.describe(regions[0]), memfd()));
  EXPECT_FALSE(add(frontend.describe(regions[0]), memfd()));

  VhostUserMessage table = frontend.memory_table();
  table.fds.pop_back();
  EXPECT_FALSE(frontend.ack(std::move(table)));
  table = frontend.memory_table();
  const VhostUserMemoryHeader nine{.num_regions = 9, .padding = 0};
  std::memcpy(table.payload.data(), &nine, sizeof(nine));
  EXPECT_FALSE(frontend.ack(std::move(table)));
  table = frontend.memory_table();
  table.payload.pop_back();
  EXPECT_FALSE(frontend.ack(std::move(table)));
  EXPECT_TRUE(frontend.ack(frontend.memory_table()));
}

TEST(VhostUserServer, ARingFollowsItsMemorySlot) {
  VhostTestFrontend frontend(options());
  frontend.negotiate(kRing);
  const auto regions = frontend.memory().guest().regions();
  const auto change = [&](uint32_t request, size_t which) {
    VhostUserMessage message = vhost_user_message(
        request, VhostUserSingleRegion{.padding = 0, .region = frontend.describe(regions[which])});
    if (request == VHOST_USER_ADD_MEM_REG) {
      message.fds.push_back(VhostTestFrontend::copy(frontend.memory().guest().memfd()));
    }
    return frontend.ack(std::move(message));
  };
  for (size_t i = 0; i < regions.size(); ++i) EXPECT_TRUE(change(VHOST_USER_ADD_MEM_REG, i));
  RigDriver& driver = frontend.add_driver(false);
  frontend.start_ring(0, 0);
  driver.send({readable("x"), writable(1)});
  EXPECT_TRUE(driver.wait_used().arrived);
  for (size_t i = 0; i < regions.size(); ++i) EXPECT_TRUE(change(VHOST_USER_REM_MEM_REG, i));
  EXPECT_FALSE(change(VHOST_USER_REM_MEM_REG, 0));
  driver.send({readable("x"), writable(1)});
  frontend.turn(40);
  EXPECT_FALSE(driver.try_used());
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_STATUS), 0u);  // no memory is no fault
  for (size_t i = 0; i < regions.size(); ++i) EXPECT_TRUE(change(VHOST_USER_ADD_MEM_REG, i));
  EXPECT_TRUE(driver.wait_used().arrived);
}

TEST(VhostUserServer, ADisconnectAtEveryByteIsTold) {
  VhostTestFrontend frontend(options());
  VhostUserMessage message = frontend.memory_table();
  VhostUserHeader header{.request = message.request,
                         .flags = kVhostUserVersion,
                         .size = static_cast<uint32_t>(message.payload.size())};
  std::vector<std::byte> bytes(sizeof(header) + message.payload.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::ranges::copy(message.payload, bytes.begin() + sizeof(header));
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    ASSERT_EQ(::send(frontend.channel().socket().get(), bytes.data(), cut, MSG_NOSIGNAL),
              static_cast<ssize_t>(cut));
    if (cut % 2 == 0) frontend.turn(3);
    frontend.disconnect();
    frontend.turn();
    ASSERT_EQ(frontend.gone().size(), cut + 1);
    const bool boundary = cut == 0 || cut == bytes.size();
    EXPECT_EQ(frontend.gone().back().code(),
              boundary ? std::errc::not_connected : std::errc::connection_aborted)
        << cut;
    frontend.connect();
  }
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_QUEUE_NUM), 2u);
}

TEST(VhostUserServer, AFrontEndThatNeverReadsIsKeptWaiting) {
  VhostTestFrontend frontend(options());
  size_t sent = 0;
  for (; sent < 100'000 && !frontend.channel().wants_write(); ++sent) {
    frontend.send(vhost_user_message(VHOST_USER_GET_FEATURES));
    frontend.turn(1);
  }
  ASSERT_TRUE(frontend.channel().wants_write());  // so the server takes no more
  EXPECT_TRUE(frontend.gone().empty());
  for (size_t received = 0; received < sent; ++received) {
    ASSERT_TRUE(frontend.channel().flush());
    ASSERT_TRUE(frontend.receive()) << received;
  }
}

}  // namespace
}  // namespace crosvm
