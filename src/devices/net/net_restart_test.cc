// A card on a tap whose process is killed, and which gets another one, in a network namespace of
// the test's own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <csignal>

#include "devices/net/net_device.h"
#include "devices/net/net_namespace.h"
#include "devices/net/tap.h"
#include "jail/rig/worker_host.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

using testing::IsEmpty;

constexpr MacAddress kMac = {2, 0, 0, 0, 0, 9};
constexpr uint16_t kPairs = 3;

class NetRestartTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!namespace_.missing().empty()) GTEST_SKIP() << namespace_.missing();
    auto host = WorkerHost::create({.restart_devices = {"net"}, .restarts_a_minute = 100});
    ASSERT_TRUE(host) << host.error().what();
    host_ = std::move(*host);
    auto tap = attach_tap("mine", kPairs);
    ASSERT_TRUE(tap) << tap.error().what();
    const NetConfig config{.network = "mine", .mac = kMac, .vq_pairs = kPairs, .mtu = tap->mtu};
    auto memory = NetMemory::create();
    ASSERT_TRUE(memory) << memory.error().what();
    auto device = opened_device<NetFactory>(
        config.to_text(),
        NetResources{.taps = std::move(tap->queues), .memory = std::move(*memory)});
    ASSERT_TRUE(device) << device.error().what();
    auto backend = host_->run("net0", device_type<NetFactory>(), config.to_text(), **device);
    ASSERT_TRUE(backend) << backend.error().what();
    host_->go();
    rig_.emplace(Rig::attach(std::move(*backend)));
  }
  void TearDown() override {
    rig_.reset();  // before its process
  }
  void command(uint8_t kind, uint8_t what, auto value) {
    RigDriver& control = rig_->driver(2 * kPairs);
    control.send({readable(std::array<uint8_t, 2>{kind, what}), readable(value), writable(1)});
    EXPECT_EQ(control.wait_used().last_byte(), VIRTIO_NET_OK);
  }
  void kill_process() {
    const pid_t former = host_->process("net0");
    ASSERT_NE(former, 0);
    ::kill(former, SIGKILL);
    ASSERT_NE(host_->wait_process("net0", former), 0);
  }
  void expect_sent(uint16_t pair, uint8_t number, const PacketTap& network) {
    const auto packet = PacketTap::packet(number);
    RigDriver& driver = rig_->driver(static_cast<uint16_t>(2 * pair + 1));
    driver.send({readable(NetHeader{}), readable(std::span(packet))});
    EXPECT_TRUE(driver.wait_used().arrived);
    EXPECT_EQ(network.next(), packet);
  }
  /// The next packet for the driver, which is given to one of the first `pairs`.
  std::vector<std::byte> receive(uint16_t pairs, int most_tries = 500) {
    for (int tries = 0; tries < most_tries; ++tries) {
      for (uint16_t pair = 0; pair < pairs; ++pair) {
        const RigUsed used =
            rig_->driver(static_cast<uint16_t>(2 * pair)).wait_used(std::chrono::milliseconds(20));
        if (!used.arrived || used.written < kNetHeaderBytes) continue;
        return {used.bytes.begin() + kNetHeaderBytes, used.bytes.begin() + used.written};
      }
    }
    return {};
  }
  /// Of interest only to a card that receives all.
  static std::vector<std::byte> packet_for_others() {
    auto packet = PacketTap::packet(1);
    packet[0] = std::byte{2};  // one station, and not this one
    return packet;
  }
  void expect_all_received(const PacketTap& network) {
    const auto for_others = packet_for_others();
    network.send(for_others);
    std::vector<std::byte> got;
    do {  // the host says a word or two of its own, to all
      got = receive(1);
    } while (!got.empty() && got != for_others);
    EXPECT_EQ(got, for_others) << "the filter of the driver before";
  }
  void give_buffers(uint16_t pairs) {
    for (uint16_t pair = 0; pair < pairs; ++pair) {
      for (int i = 0; i < 8; ++i) {
        rig_->driver(static_cast<uint16_t>(2 * pair)).send({writable(1526)});
      }
    }
  }

  TestNamespace namespace_;
  std::unique_ptr<WorkerHost> host_;
  std::optional<Rig> rig_;
};

TEST_F(NetRestartTest, ACardGoesOnAsItsDriverHasSetItUp) {
  constexpr uint16_t kUsed = 2;
  command(VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, kUsed);
  command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, uint8_t{0});
  const PacketTap network("mine");
  give_buffers(kUsed);
  const auto for_others = packet_for_others();
  for (uint8_t round = 0; round < 5; ++round) {
    SCOPED_TRACE(round);
    kill_process();
    EXPECT_TRUE(interface_is_up("mine"));
    const auto number = static_cast<uint8_t>(100 + 10 * round);
    for (uint16_t pair = 0; pair < kUsed; ++pair) {
      expect_sent(pair, static_cast<uint8_t>(number + pair), network);
    }
    const auto wanted = PacketTap::packet(static_cast<uint8_t>(number + 9));
    network.send(for_others);
    std::vector<std::byte> got;
    // One may be lost with a pair that is just going out of use.
    for (int tries = 0; tries < 20 && got != wanted; ++tries) {
      network.send(wanted);
      do {  // the host says a word or two of its own, to all
        got = receive(kUsed, 25);
        EXPECT_NE(got, for_others) << "the filter is gone";
      } while (!got.empty() && got != wanted);
    }
    EXPECT_EQ(got, wanted) << "it may have been given to a pair that is not in use";
  }
  EXPECT_FALSE(rig_->needs_reset());
  EXPECT_THAT(host_->deaths(), IsEmpty());
}

TEST_F(NetRestartTest, AResetIsRememberedToo) {
  command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, uint8_t{0});
  rig_->reset();
  const PacketTap network("mine");
  give_buffers(1);
  kill_process();
  expect_sent(0, 50, network);  // it serves
  expect_all_received(network);
}

// The process that is to come has not heard of the driver that had set it up.
TEST_F(NetRestartTest, AResetWhileNobodyServesIsHeard) {
  const PacketTap network("mine");
  for (int round = 0; round < 5; ++round) {
    SCOPED_TRACE(round);
    command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, uint8_t{0});
    const pid_t former = host_->process("net0");
    ASSERT_EQ(::kill(former, SIGKILL), 0);
    rig_->reset();
    ASSERT_NE(host_->wait_process("net0", former), 0);
    give_buffers(1);
    expect_sent(0, 50, network);
    expect_all_received(network);
    rig_->reset();
  }
}

TEST(NetMemoryTest, KeepsTheLastStateAndSaysWhatIsDamaged) {
  auto file = NetMemory::create();
  ASSERT_TRUE(file) << file.error().what();
  auto memory = NetMemory::map(*file);
  ASSERT_TRUE(memory) << memory.error().what();
  EXPECT_FALSE(memory->load());
  for (uint64_t features = 1; features < 5; ++features) {
    DeviceState state{.device_type = 1, .features = features, .fields = {}};
    state.fields.set(7, uint32_t{9});
    memory->store(state);
    auto other = NetMemory::map(*file);
    ASSERT_TRUE(other);
    const auto found = other->load();
    ASSERT_TRUE(found);
    EXPECT_EQ(found->features, features);
    EXPECT_EQ(*found->fields.get<uint32_t>(7), 9u);
  }
  const uint32_t huge = UINT32_MAX;
  for (const off_t place : {4096, 8192}) {
    ASSERT_EQ(::pwrite(file->get(), &huge, sizeof(huge), place), 4);
  }
  EXPECT_FALSE(memory->load());
  EXPECT_NE(::ftruncate(file->get(), 0), 0) << "none can take it from under us";
}

}  // namespace
}  // namespace crosvm
