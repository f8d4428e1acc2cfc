// What a guest is offered of a network back-end.

#include <gtest/gtest.h>
#include <linux/virtio_ids.h>

#include "vhost/conformance/scripted_peer.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_user_backend.h"

namespace crosvm {
namespace {

constexpr uint64_t bits(std::initializer_list<unsigned> numbers) {
  uint64_t all = 0;
  for (const unsigned number : numbers) all |= uint64_t{1} << number;
  return all;
}
constexpr uint64_t kPackets = bits({0, 1, 15, 32});  // CSUM, GUEST_CSUM, MRG_RXBUF, VERSION_1
constexpr uint64_t kControl = bits({2, 17, 18, 19, 20, 21, 22, 23, 52, 53, 57, 60});

DeviceInfo info_of(uint32_t type, bool has_config, std::vector<uint16_t> queue_sizes = {}) {
  LoopThread control;
  auto [ours, theirs] = socket_pair();
  ScriptedPeer::Script script;
  script.features |= kPackets | kControl;
  script.config_length = 24;
  if (!has_config) script.protocol_features &= ~vhost_user_bit(VHOST_USER_PROTOCOL_F_CONFIG);
  ScriptedPeer peer(std::move(theirs), script);
  auto made = VhostUserBackend::create(control.loop(), std::move(ours),
                                       {.name = "device",
                                        .device_type = type,
                                        .queue_sizes = std::move(queue_sizes),
                                        .max_queue_size = 256,
                                        .config_length = 24});
  CHECK(made.has_value());
  return (*made)->info();
}

TEST(VhostUserNetFeatures, AControlQueueIsOfABackEndWithAConfiguration) {
  const DeviceInfo info = info_of(VIRTIO_ID_NET, true);
  EXPECT_EQ(info.features, kPackets | kControl);
  EXPECT_EQ(info.queue_sizes.size(), 5u);  // two pairs, and that
}

TEST(VhostUserNetFeatures, NobodyServesTheControlQueueOfAnother) {
  const DeviceInfo info = info_of(VIRTIO_ID_NET, false);
  EXPECT_EQ(info.features, kPackets);
  EXPECT_EQ(info.queue_sizes.size(), 4u);
}

TEST(VhostUserNetFeatures, TheBitsOfOtherTypesMeanSomethingElse) {
  EXPECT_EQ(info_of(VIRTIO_ID_BLOCK, false).features, kPackets | kControl);
}

}  // namespace
}  // namespace crosvm
