// Devices whose configuration is ours and whose back-ends may be away for long.

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "vhost/conformance/scripted_peer.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/rig/rig.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }
constexpr uint64_t kOurs = bit(5) | bit(16);

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// A device that goes on without its back-end.
class OwnConfigTest : public testing::Test {
 protected:
  VhostUserOptions options() {
    return {.name = "net0",
            .device_type = 0xffff,
            .queue_sizes = {256, 256},
            .own_config =
                OwnDeviceConfig{
                    .features = kOurs, .present = bytes_of("here"), .absent = bytes_of("away")},
            .hidden_features = bit(3),
            .disconnected = [this](const Error&) {
              ++lost_;
              return AfterLoss::kGoOnWithout;
            }};
  }
  std::unique_ptr<VhostUserBackend> create(Fd socket) {
    auto made = VhostUserBackend::create(control_.loop(), std::move(socket), options());
    if (!made) ADD_FAILURE() << made.error().what();
    CHECK(made.has_value());
    return std::move(*made);
  }
  Rig attach(Fd socket) {
    auto backend = create(std::move(socket));
    vhost_ = backend.get();
    return Rig::attach(std::move(backend), {.max_queue_size = 16});
  }
  Result<void> reconnect(Fd socket) {
    std::promise<Result<void>> done;
    vhost_->reconnect(std::move(socket), [&](Result<void> result) { done.set_value(result); });
    return done.get_future().get();
  }
  bool is_lost(int times) const {
    for (int tries = 0; tries < 20'000 && lost_ < times; ++tries) std::this_thread::sleep_for(1ms);
    return lost_ == times;
  }
  static void expect_echo(Rig& rig, std::string_view text) {
    const RigToken token = rig.driver(0).send({readable(text), writable(text.size())});
    EXPECT_EQ(rig.driver(0).wait_used(token).bytes, readable(text).bytes);
  }

  LoopThread control_;
  std::atomic<int> lost_ = 0;
  VhostUserBackend* vhost_ = nullptr;
};

TEST_F(OwnConfigTest, ABackEndHearsNothingOfIt) {
  auto [ours, theirs] = socket_pair();
  ScriptedPeer::Script script;
  script.features |= bit(3) | bit(16) | bit(28);
  script.protocol_features |= bit(VHOST_USER_PROTOCOL_F_RESET_DEVICE);
  ScriptedPeer peer(std::move(theirs), script);
  auto backend = create(std::move(ours));
  EXPECT_EQ(backend->info().features, bit(VIRTIO_F_VERSION_1) | bit(28) | kOurs);
  EXPECT_EQ(backend->info().config, bytes_of("here"));
  EXPECT_EQ(backend->info().queue_sizes.size(), 2U);
  backend->set_features(backend->info().features);
  backend->set_config(0, bytes_of("x"));
  std::promise<void> done;
  backend->reset([&] { done.set_value(); });
  done.get_future().wait();
  // Bit 16 is one that it offers itself.
  EXPECT_EQ(peer.last_value(VHOST_USER_SET_FEATURES),
            bit(VIRTIO_F_VERSION_1) | bit(28) | bit(16) | bit(kVhostUserProtocolFeatures));
  EXPECT_EQ(peer.count(VHOST_USER_GET_CONFIG), 0U);
  EXPECT_EQ(peer.count(VHOST_USER_SET_CONFIG), 0U);
}

TEST_F(OwnConfigTest, TheDriverSeesItsBackEndsComeAndGo) {
  auto [ours, theirs] = socket_pair();
  auto server = std::make_unique<EchoServer>(std::move(theirs), EchoOptions());
  Rig rig = attach(std::move(ours));
  expect_echo(rig, "abc");
  for (int round = 1; round < 4; ++round) {
    unsigned changes = rig.config_changes();
    server.reset();
    ASSERT_TRUE(is_lost(round));
    EXPECT_TRUE(rig.wait_config_change(changes));
    EXPECT_EQ(rig.config(), bytes_of("away"));
    const RigToken waiting = rig.driver(0).send({readable("later"), writable(5)});
    {
      auto [mine, none] = socket_pair();
      none = Fd();
      EXPECT_FALSE(reconnect(std::move(mine)).has_value()) << "another one may come";
    }
    EXPECT_EQ(rig.config(), bytes_of("away"));
    auto [mine, other] = socket_pair();
    server = std::make_unique<EchoServer>(std::move(other), EchoOptions());
    changes = rig.config_changes();
    const auto done = reconnect(std::move(mine));
    ASSERT_TRUE(done.has_value()) << done.error().what();
    EXPECT_TRUE(rig.wait_config_change(changes));
    EXPECT_EQ(rig.config(), bytes_of("here"));
    EXPECT_EQ(rig.driver(0).wait_used(waiting).bytes, readable("later").bytes);
    expect_echo(rig, "def");
  }
  EXPECT_FALSE(rig.needs_reset());
}

/// A guest may reboot, or its driver be loaded anew, while nobody is there.
TEST_F(OwnConfigTest, StopsAndResetsWaitForNobody) {
  auto [ours, theirs] = socket_pair();
  auto server = std::make_unique<EchoServer>(std::move(theirs), EchoOptions());
  Rig rig = attach(std::move(ours));
  expect_echo(rig, "abc");
  server.reset();
  ASSERT_TRUE(is_lost(1));
  const RingPosition at = rig.stop_queue(0);
  EXPECT_EQ(at.index, 1);
  rig.start_queue(0, at);
  rig.reset();
  rig.reset();
  const RigToken waiting = rig.driver(0).send({readable("later"), writable(5)});
  rig.write_config(0, bytes_of("x"));
  auto [mine, other] = socket_pair();
  server = std::make_unique<EchoServer>(std::move(other), EchoOptions());
  ASSERT_TRUE(reconnect(std::move(mine)).has_value());
  EXPECT_EQ(rig.driver(0).wait_used(waiting).bytes, readable("later").bytes);
  EXPECT_EQ(rig.config(), bytes_of("here"));
  EXPECT_FALSE(rig.needs_reset());
}

/// Its back-end goes in the middle of a stop and a reset that the driver waits for.
TEST_F(OwnConfigTest, WhoWaitsForABackEndThatGoesWaitsNoLonger) {
  auto [ours, theirs] = socket_pair();
  ScriptedPeer::Script script;
  script.instead = [silent = false](ScriptedPeer&, const VhostUserMessage& message) mutable {
    return silent = silent || message.request == VHOST_USER_GET_VRING_BASE;
  };
  std::optional<ScriptedPeer> peer;
  peer.emplace(std::move(theirs), script);
  const RigMemory memory;
  auto backend = create(std::move(ours));
  backend->set_features(bit(VIRTIO_F_VERSION_1));
  backend->set_memory(memory.guest());
  backend->set_vring_num(0, 16);
  backend->set_vring_addr(0, {GuestAddress{0x1000}, GuestAddress{0x2000}, GuestAddress{0x3000}});
  backend->set_vring_kick(0, std::move(*make_eventfd()));
  backend->set_vring_enable(0, true);
  std::promise<void> stopped;
  std::promise<void> reset;
  backend->get_vring_base(0, [&](RingPosition) { stopped.set_value(); });
  backend->reset([&] { reset.set_value(); });
  auto done = reset.get_future();
  EXPECT_EQ(done.wait_for(30ms), std::future_status::timeout) << "it may still be at work";
  peer.reset();
  EXPECT_EQ(done.wait_for(30s), std::future_status::ready);
  EXPECT_EQ(stopped.get_future().wait_for(30s), std::future_status::ready);
}

}  // namespace
}  // namespace crosvm
