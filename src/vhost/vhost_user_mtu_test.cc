#include <gtest/gtest.h>
#include <linux/virtio_ids.h>

#include <thread>

#include "vhost/conformance/scripted_peer.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_test_frontend.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }
constexpr uint64_t kFeatures = bit(VIRTIO_F_VERSION_1) | bit(kVirtioNetMtu);
constexpr uint64_t kProtocolBit = bit(VHOST_USER_PROTOCOL_F_MTU);

/// What a network device does about its MTU.
class NetLike : public EchoDevice {
 public:
  NetLike(EchoOptions options, DeviceContext context, uint16_t& mtu)
      : EchoDevice(std::move(options), std::move(context)), mtu_(mtu) {}
  uint32_t device_type() const override { return VIRTIO_ID_NET; }
  uint64_t device_features() const override { return bit(kVirtioNetMtu); }
  Result<void> set_mtu(uint16_t mtu) override {
    if (mtu > 9000) return fail(Error::invalid("too large for the host's side"));
    mtu_ = mtu;
    return {};
  }

 private:
  uint16_t& mtu_;
};

TEST(VhostUserMtu, ReachesTheDevice) {
  uint16_t mtu = 0;
  VhostTestFrontend frontend({}, [&](EchoOptions options, DeviceContext context) {
    return std::make_unique<NetLike>(std::move(options), std::move(context), mtu);
  });
  frontend.negotiate(kFeatures);
  EXPECT_TRUE(frontend.ack(VHOST_USER_NET_SET_MTU, uint64_t{1500}));
  EXPECT_EQ(mtu, 1500u);
  for (const uint64_t wrong : {0ull, 67ull, 9001ull, 65536ull + 1500, ~0ull}) {
    EXPECT_FALSE(frontend.ack(VHOST_USER_NET_SET_MTU, wrong)) << wrong;
  }
  EXPECT_FALSE(frontend.ack(VHOST_USER_NET_SET_MTU, uint32_t{1500}));
  EXPECT_EQ(mtu, 1500u);
}

TEST(VhostUserMtu, IsNotOfferedForOtherDevices) {
  VhostTestFrontend frontend({});
  frontend.negotiate(bit(VIRTIO_F_VERSION_1));
  EXPECT_EQ(*frontend.ask(VHOST_USER_GET_PROTOCOL_FEATURES) & kProtocolBit, 0u);
  EXPECT_FALSE(frontend.ack(VHOST_USER_NET_SET_MTU, uint64_t{1500}));
}

/// The MTU that a back-end is told, or 0 when it is told none.
uint64_t told(uint64_t protocol_features, uint64_t accepted, std::optional<uint16_t> mtu) {
  LoopThread control;
  auto [ours, theirs] = socket_pair();
  ScriptedPeer::Script script;
  script.features |= kFeatures;
  // So that a reset is over when the peer has seen all that came before it.
  script.protocol_features |=
      protocol_features | vhost_user_bit(VHOST_USER_PROTOCOL_F_RESET_DEVICE);
  ScriptedPeer peer(std::move(theirs), script);
  auto made = VhostUserBackend::create(control.loop(), std::move(ours),
                                       {.name = "net",
                                        .device_type = VIRTIO_ID_NET,
                                        .max_queue_size = 256,
                                        .config_length = 8,
                                        .mtu = mtu});
  CHECK(made.has_value());
  (*made)->set_features(accepted);
  std::promise<void> done;
  (*made)->reset([&] { done.set_value(); });
  done.get_future().wait();
  return peer.last_value(VHOST_USER_NET_SET_MTU);
}

TEST(VhostUserMtu, IsToldToABackEndThatTakesIt) {
  EXPECT_EQ(told(kProtocolBit, kFeatures, 1400), 1400u);
  EXPECT_EQ(told(kProtocolBit, kFeatures, {}), 0u);
  EXPECT_EQ(told(0, kFeatures, 1400), 0u) << "the back-end takes none";
  EXPECT_EQ(told(kProtocolBit, bit(VIRTIO_F_VERSION_1), 1400), 0u) << "the driver wants none";
}

}  // namespace
}  // namespace crosvm
