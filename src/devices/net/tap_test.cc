// Cards on taps, in a network namespace of the test's own.

#include "devices/net/tap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>

#include "base/format.h"
#include "devices/net/net_device.h"
#include "devices/net/net_namespace.h"
#include "devices/net/tap_port.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr MacAddress kMac = {2, 0, 0, 0, 0, 9};

class TapTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!namespace_.missing().empty()) GTEST_SKIP() << namespace_.missing();
  }
  static Tap must(Result<Tap> tap) {
    if (!tap) ADD_FAILURE() << tap.error().what();
    CHECK(tap.has_value());
    return std::move(*tap);
  }
  template <class T>
  static std::string error_of(const Result<T>& result) {
    return result ? "" : result.error().what();
  }
  static Rig card_on(Tap tap, RigPlace place = RigPlace::kThread) {
    const NetConfig config{.network = tap.name,
                           .mac = kMac,
                           .vq_pairs = static_cast<uint16_t>(tap.queues.size()),
                           .mtu = tap.mtu};
    auto device =
        opened_device<NetFactory>(config.to_text(), NetResources{.taps = std::move(tap.queues)});
    CHECK(device.has_value());
    return must_have_rig(Rig::create(device_type<NetFactory>(), config.to_text(),
                                     std::move(*device), {.place = place}));
  }
  static void send(Rig& rig, std::span<const std::byte> packet, uint16_t queue = 1) {
    rig.driver(queue).send({readable(NetHeader{}), readable(packet)});
    EXPECT_TRUE(rig.driver(queue).wait_used().arrived);
  }
  static std::vector<std::byte> body(const RigUsed& used) {
    if (used.written < kNetHeaderBytes) return {};
    return {used.bytes.begin() + kNetHeaderBytes, used.bytes.begin() + used.written};
  }
  static uint16_t status(const Rig& rig) {
    NetConfigSpace space;
    std::memcpy(&space, rig.config().data(), sizeof(space));
    return space.status;
  }
  /// Open, with these flags, and not close-on-exec: as one that we were started with.
  static Fd open_queue(short flags, const char* name = "given") {
    Fd tun(::open("/dev/net/tun", O_RDWR));
    ifreq request{};
    std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    request.ifr_flags = flags;
    EXPECT_EQ(::ioctl(tun.get(), TUNSETIFF, &request), 0);
    return tun;
  }
  TestNamespace namespace_;
};

class TapPlaceTest : public TapTest, public testing::WithParamInterface<RigPlace> {};
INSTANTIATE_TEST_SUITE_P(Places, TapPlaceTest,
                         testing::Values(RigPlace::kThread, RigPlace::kWorker),
                         [](const auto& info) { return name_of(info.param); });

TEST_P(TapPlaceTest, CarriesPacketsBothWays) {
  auto rig = card_on(must(attach_tap("mine", 1)), GetParam());
  EXPECT_TRUE(interface_is_up("mine"));
  const PacketTap host("mine");
  for (uint8_t i = 0; i < 20; ++i) {
    send(rig, PacketTap::packet(i));
    EXPECT_EQ(host.next(), PacketTap::packet(i));
    host.send(PacketTap::packet(100 + i));
    std::vector<std::byte> got;
    while (got != PacketTap::packet(100 + i)) {  // the host says a word or two of its own
      rig.driver(0).send({writable(1526)});
      const RigUsed used = rig.driver(0).wait_used();
      ASSERT_TRUE(used.arrived);
      got = body(used);
    }
  }
}

TEST_P(TapPlaceTest, PacketsGoToThePairsThatAreUsed) {
  auto rig = card_on(must(attach_tap("mine", 3)), GetParam());
  const PacketTap host("mine");
  const auto use = [&](uint16_t pairs) {
    rig.driver(6).send(
        {readable(std::array<uint8_t, 2>{VIRTIO_NET_CTRL_MQ, 0}), readable(pairs), writable(1)});
    EXPECT_EQ(rig.driver(6).wait_used().last_byte(), VIRTIO_NET_OK);
  };
  for (const uint16_t pairs : {3, 1, 2, 3}) {
    use(pairs);
    for (uint16_t pair = 0; pair < pairs; ++pair) {
      const auto packet = PacketTap::packet(static_cast<uint8_t>(pairs * 10 + pair));
      send(rig, packet, static_cast<uint16_t>(2 * pair + 1));
      EXPECT_EQ(host.next(), packet);
    }
  }
  EXPECT_EQ(status(rig), VIRTIO_NET_S_LINK_UP);
  // With one pair left, all that comes is for that one. The others may see the last of it.
  use(1);
  bool seen = false;
  for (int i = 0; i < 200 && !seen; ++i) {
    host.send(PacketTap::packet(200));
    rig.driver(0).send({writable(1526)});
    seen = body(rig.driver(0).wait_used(std::chrono::milliseconds(100))) == PacketTap::packet(200);
  }
  EXPECT_TRUE(seen);
  // What was in the others' rings comes back all the same.
  for (const uint16_t queue : {3, 5}) send(rig, PacketTap::packet(201), queue);
  ASSERT_TRUE(set_interface_up("mine", false));
  for (const uint16_t queue : {3, 5}) send(rig, PacketTap::packet(202), queue);
  EXPECT_EQ(status(rig), VIRTIO_NET_S_LINK_UP);  // it is the used one's to tell
}

TEST_P(TapPlaceTest, TheLinkFollowsTheInterface) {
  auto rig = card_on(must(attach_tap("mine", 1)), GetParam());
  const PacketTap host("mine");
  ASSERT_TRUE(set_interface_up("mine", false));
  unsigned seen = rig.config_changes();
  send(rig, PacketTap::packet(1));
  ASSERT_TRUE(rig.wait_config_change(seen));
  EXPECT_EQ(status(rig), 0);
  send(rig, PacketTap::packet(2));
  seen = rig.config_changes();
  ASSERT_TRUE(set_interface_up("mine", true));
  ASSERT_TRUE(rig.wait_config_change(seen));
  EXPECT_EQ(status(rig), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
  seen = rig.config_changes();
  rig.driver(2).send({readable(std::array<uint8_t, 2>{VIRTIO_NET_CTRL_ANNOUNCE, 0}), writable(1)});
  EXPECT_EQ(rig.driver(2).wait_used().last_byte(), VIRTIO_NET_OK);
  ASSERT_TRUE(rig.wait_config_change(seen));
  EXPECT_EQ(status(rig), VIRTIO_NET_S_LINK_UP);
  const PacketTap again("mine");
  send(rig, PacketTap::packet(3));
  EXPECT_EQ(again.next(), PacketTap::packet(3));
}

TEST_P(TapPlaceTest, ATapThatVanishesIsALinkThatStaysDown) {
  auto rig = card_on(must(attach_tap("mine", 1)), GetParam());
  const unsigned seen = rig.config_changes();
  ASSERT_TRUE(delete_interface("mine"));
  ASSERT_TRUE(rig.wait_config_change(seen));
  EXPECT_EQ(status(rig), 0);
  send(rig, PacketTap::packet(2));
  EXPECT_FALSE(rig.needs_reset());
  rig.reset();
  send(rig, PacketTap::packet(2));
}

TEST_P(TapPlaceTest, ADriverComesAndGoesAThousandTimes) {
  auto rig = card_on(must(attach_tap("mine", 1)), GetParam());
  const PacketTap host("mine");
  for (int round = 0; round < 1000; ++round) {
    // It goes in the middle of traffic of both directions.
    for (int i = 0; i < 4; ++i) {
      rig.driver(0).send({writable(1526)});
      rig.driver(1).send({readable(NetHeader{}), readable(PacketTap::packet(1))});
      host.send(PacketTap::packet(2));
    }
    rig.reset();
    const auto packet = PacketTap::packet(static_cast<uint8_t>(10 + round % 200));
    send(rig, packet);
    std::vector<std::byte> got;
    do {
      got = host.next();
    } while (!got.empty() && got != packet);
    ASSERT_EQ(got, packet) << round;
  }
  EXPECT_FALSE(rig.needs_reset());
  EXPECT_EQ(status(rig), VIRTIO_NET_S_LINK_UP);
}

TEST_F(TapTest, AnInterfaceThatIsDownAtTheStartIsALinkThatIsDown) {
  Tap tap = must(attach_tap("mine", 1));
  ASSERT_TRUE(set_interface_up("mine", false));
  auto rig = card_on(std::move(tap));
  EXPECT_EQ(status(rig), 0);
  const unsigned seen = rig.config_changes();
  ASSERT_TRUE(set_interface_up("mine", true));
  ASSERT_TRUE(rig.wait_config_change(seen) || status(rig) != 0);
}

TEST_F(TapTest, ANewTapGetsItsAddressesAndGoesWithItsDescriptor) {
  const TapAddress address{
      .ip = {10, 20, 30, 1}, .netmask = {255, 255, 255, 0}, .mac = {2, 0, 0, 0, 0, 0x77}};
  {
    const Tap tap = must(make_tap(address, 2));
    EXPECT_EQ(tap.name, "vmtap0");
    EXPECT_EQ(tap.queues.size(), 2u);
    EXPECT_EQ(tap.mtu, 1500u);
    EXPECT_TRUE(interface_is_up("vmtap0"));
    const Tap other = must(make_tap(address, 1));
    EXPECT_EQ(other.name, "vmtap1");
    ifreq request{};
    ASSERT_TRUE(interface_ioctl("vmtap0", SIOCGIFHWADDR, request));
    EXPECT_EQ(std::memcmp(request.ifr_hwaddr.sa_data, address.mac.data(), 6), 0);
    const auto ip_is = [&](unsigned long code, const Ipv4Address& ip) {
      ASSERT_TRUE(interface_ioctl("vmtap0", code, request));
      EXPECT_EQ(std::memcmp(request.ifr_addr.sa_data + 2, ip.data(), 4), 0);
    };
    ip_is(SIOCGIFADDR, address.ip);
    ip_is(SIOCGIFNETMASK, address.netmask);
  }
  EXPECT_EQ(::if_nametoindex("vmtap0"), 0u);
  EXPECT_EQ(::if_nametoindex("vmtap1"), 0u);
}

TEST_F(TapTest, AddressesThatNoInterfaceHasAreRefusedByName) {
  const auto refusal = [](const TapAddress& address) { return error_of(make_tap(address, 1)); };
  EXPECT_THAT(
      refusal({.ip = {10, 20, 30, 1}, .netmask = {255, 0, 255, 0}, .mac = {2, 0, 0, 0, 0, 1}}),
      AllOf(HasSubstr("setting the netmask 255.0.255.0 of tap vmtap0: Invalid argument"),
            HasSubstr("its ones come before its zeros")));
  EXPECT_THAT(
      refusal({.ip = {224, 0, 0, 1}, .netmask = {255, 255, 255, 0}, .mac = {2, 0, 0, 0, 0, 1}}),
      AllOf(HasSubstr("IP address 224.0.0.1"), HasSubstr("one of a single host")));
}

TEST_F(TapTest, ATapThatWasThereStays) {
  {
    const Fd owner = open_queue(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, "theirs");
    ASSERT_EQ(::ioctl(owner.get(), TUNSETPERSIST, 1UL), 0);
  }
  ifreq request{};
  request.ifr_mtu = 9000;
  ASSERT_TRUE(interface_ioctl("theirs", SIOCSIFMTU, request));
  EXPECT_EQ(must(attach_tap("theirs", 1)).mtu, 9000u);
  EXPECT_NE(::if_nametoindex("theirs"), 0u);
  EXPECT_FALSE(interface_is_up("theirs"));  // that is its owner's affair
}

TEST_F(TapTest, OneQueueOfATapWithMany) {
  {
    const Fd owner = open_queue(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE, "theirs");
    ASSERT_EQ(::ioctl(owner.get(), TUNSETPERSIST, 1UL), 0);
  }
  EXPECT_EQ(must(attach_tap("theirs", 1)).queues.size(), 1u);
  EXPECT_EQ(must(attach_tap("theirs", 4)).queues.size(), 4u);
}

TEST_F(TapTest, SaysWhatIsWrongWithAName) {
  EXPECT_THAT(error_of(attach_tap("sixteen-letters!", 1)), HasSubstr("at most 15"));
  for (const char* name : {"", ".", "..", "a/b", "a b", "a:b", "a\n"}) {
    EXPECT_THAT(error_of(attach_tap(name, 1)), HasSubstr("cannot be the name")) << name;
  }
  EXPECT_THAT(error_of(attach_tap("lo", 1)), AllOf(HasSubstr("lo"), HasSubstr("no tap")));
  const Tap taken = must(attach_tap("mine", 1));
  EXPECT_THAT(error_of(attach_tap("mine", 1)),
              AllOf(HasSubstr("tap mine"), HasSubstr("another process has it")));
  EXPECT_THAT(error_of(attach_tap("mine", 2)), HasSubstr("multi_queue"));
}

TEST_F(TapTest, TakesADescriptorAndSaysWhatItLacks) {
  const Fd good = open_queue(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, "good");
  EXPECT_THAT(error_of(adopt_tap(good.get(), 2)), HasSubstr("lacks IFF_MULTI_QUEUE"));
  EXPECT_EQ(must(adopt_tap(good.get(), 1)).name, "good");
  EXPECT_THAT(error_of(adopt_tap(good.get(), 1)), HasSubstr("another card has it"));
  const Fd many = open_queue(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE, "many");
  EXPECT_EQ(must(adopt_tap(many.get(), 3)).queues.size(), 3u);
  const Fd plain = open_queue(IFF_TUN, "plain");
  EXPECT_THAT(error_of(adopt_tap(plain.get(), 1)),
              AllOf(HasSubstr(format_text("tap-fd={}", plain.get())), HasSubstr("plain"),
                    HasSubstr("lacks IFF_TAP"), HasSubstr("IFF_VNET_HDR")));
  const Fd file(::open("/dev/null", O_RDWR));
  EXPECT_THAT(error_of(adopt_tap(file.get(), 1)), HasSubstr("it is no tap"));
  EXPECT_THAT(error_of(adopt_tap(999, 1)),
              AllOf(HasSubstr("tap-fd=999"), HasSubstr("was started with no such descriptor"),
                    HasSubstr("tap-name")));
}

TEST_F(TapTest, OffloadsThatCannotBeAloneAreLeftOut) {
  EXPECT_EQ(tap_offload_flags(net_feature(VIRTIO_NET_F_GUEST_TSO4)), 0u);
  const uint64_t checksum = net_feature(VIRTIO_NET_F_GUEST_CSUM);
  EXPECT_EQ(tap_offload_flags(checksum), unsigned{TUN_F_CSUM});
  EXPECT_EQ(tap_offload_flags(checksum | net_feature(VIRTIO_NET_F_GUEST_ECN)),
            unsigned{TUN_F_CSUM});
  EXPECT_EQ(tap_offload_flags(checksum | net_feature(kNetFeatureGuestUso4)), unsigned{TUN_F_CSUM});
  // Every kernel takes what it is asked for.
  const Tap tap = must(attach_tap("mine", 1));
  for (uint64_t offloads :
       {checksum, checksum | net_feature(VIRTIO_NET_F_GUEST_TSO4),
        checksum | net_feature(VIRTIO_NET_F_GUEST_TSO6) | net_feature(VIRTIO_NET_F_GUEST_ECN),
        checksum | net_feature(VIRTIO_NET_F_GUEST_UFO), uint64_t{0}}) {
    EXPECT_EQ(::ioctl(tap.queues[0].get(), TUNSETOFFLOAD,
                      static_cast<unsigned long>(tap_offload_flags(offloads))),
              0)
        << offloads;
  }
}

}  // namespace
}  // namespace crosvm
