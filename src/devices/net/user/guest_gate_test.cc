#include "devices/net/user/guest_gate.h"

#include <gtest/gtest.h>

#include <utility>

#include "devices/net/user/rig/test_frames.h"

namespace crosvm {
namespace {

using Way = GuestGate::Way;

const IpAddress kGuest = ip("10.0.2.15");
const IpAddress kGuest6 = ip("fd00:2::15");
const IpAddress kLink = ip("fe80::1:2:3");
const IpAddress kServer = ip("192.0.2.1");
const IpAddress kServer6 = ip("2001:db8::1");

UserNetConfig config_of(std::string_view text) {
  return *UserNetConfig::parse(*KeyValues::parse(text));
}
GuestGate gate_of(std::string_view text = "") { return GuestGate(config_of(text)); }
Way way(const GuestGate& gate, const Bytes& frame) { return gate.judge(frame).way; }

TEST(GuestGateTest, FlowsToTheWorldPass) {
  const GuestGate gate = gate_of();
  EXPECT_EQ(way(gate, tcp_frame(kGuest, 1000, kServer, 80)), Way::kPass);
  EXPECT_EQ(way(gate, udp_frame(kGuest, 1000, kServer, 80, {1})), Way::kPass);
  EXPECT_EQ(way(gate, tcp_frame(kGuest6, 1000, kServer6, 80)), Way::kPass);
  EXPECT_EQ(way(gate, udp_frame(kGuest6, 1000, kServer6, 80, {1})), Way::kPass);
  EXPECT_EQ(way(gate, icmp_frame(kGuest, kServer, 8)), Way::kEcho);
  EXPECT_EQ(way(gate, icmp_frame(kGuest6, kServer6, 128)), Way::kEcho);
  EXPECT_TRUE(gate.judge(tcp_frame(kGuest, 1000, kServer, 80)).begins_tcp);
  EXPECT_FALSE(gate.judge(tcp_frame(kGuest, 1000, kServer, 80, {.flags = kTestAck})).begins_tcp);
}

TEST(GuestGateTest, WhatTheGuestNeedsOfItsNetworkPasses) {
  const GuestGate gate = gate_of();
  EXPECT_EQ(way(gate, dhcp_discover()), Way::kPass);
  EXPECT_EQ(way(gate, arp_request(kGuest, ip("10.0.2.2"))), Way::kPass);
  EXPECT_EQ(way(gate, arp_request(ip("0.0.0.0"), kGuest)), Way::kPass) << "is it taken?";
  EXPECT_EQ(way(gate, udp_frame(kGuest, 1000, ip("10.0.2.3"), 53, {1})), Way::kPass);
  EXPECT_EQ(way(gate, tcp_frame(kGuest, 1000, ip("10.0.2.3"), 53)), Way::kPass);
  EXPECT_EQ(way(gate, udp_frame(kGuest6, 1000, ip("fd00:2::3"), 53, {1})), Way::kPass);
  EXPECT_EQ(way(gate, icmp_frame(kGuest, ip("10.0.2.2"), 8)), Way::kPass);
  EXPECT_EQ(way(gate, router_solicitation(kLink)), Way::kPass);
  EXPECT_EQ(way(gate, router_solicitation(ip("::"))), Way::kPass);
  EXPECT_EQ(way(gate, neighbour_advertisement(kLink, ip("ff02::1"))), Way::kPass);
  EXPECT_EQ(way(gate, udp_frame(kLink, 546, ip("ff02::1:2"), 547, {11, 0, 0, 1})), Way::kPass);
}

TEST(GuestGateTest, TheHostsLoopbackIsDeniedUnderEachOfItsNames) {
  const GuestGate gate = gate_of();
  for (const char* address : {"10.0.2.2", "127.0.0.1", "127.0.0.53", "0.0.0.0"}) {
    EXPECT_EQ(way(gate, tcp_frame(kGuest, 1000, ip(address), 22)), Way::kDeny) << address;
    EXPECT_EQ(way(gate, udp_frame(kGuest, 1000, ip(address), 53, {1})), Way::kDeny) << address;
  }
  for (const char* address : {"fd00:2::2", "::1", "::ffff:127.0.0.1", "::127.0.0.1"}) {
    EXPECT_EQ(way(gate, tcp_frame(kGuest6, 1000, ip(address), 22)), Way::kDeny) << address;
    EXPECT_EQ(way(gate, udp_frame(kGuest6, 1000, ip(address), 53, {1})), Way::kDeny) << address;
  }
  EXPECT_EQ(way(gate, tcp_frame(kGuest, 1000, ip("10.0.2.3"), 54)), Way::kDeny);
  EXPECT_EQ(way(gate, udp_frame(kGuest, 1000, ip("10.0.2.2"), 69, {1})), Way::kDeny) << "TFTP";
  EXPECT_EQ(way(gate, icmp_frame(kGuest, ip("127.0.0.1"), 8)), Way::kDeny);
  // The library would lead any address of the network of IPv6 to the loopback.
  EXPECT_EQ(way(gate, tcp_frame(kGuest6, 1000, ip("fd00:2::99"), 22)), Way::kIgnore);
  EXPECT_EQ(way(gate, tcp_frame(kGuest, 1000, ip("10.0.2.99"), 22)), Way::kIgnore);
  EXPECT_EQ(way(gate, tcp_frame(kLink, 1000, ip("fe80::2"), 22)), Way::kIgnore);
}

TEST(GuestGateTest, APortOfTheLoopbackCanBeAllowed) {
  const GuestGate gate = gate_of("allow=[\"127.0.0.1:8080\",\"[::1]:8080\"]");
  EXPECT_EQ(way(gate, tcp_frame(kGuest, 1000, ip("10.0.2.2"), 8080)), Way::kPass);
  EXPECT_EQ(way(gate, tcp_frame(kGuest, 1000, ip("10.0.2.2"), 8081)), Way::kDeny);
  EXPECT_EQ(way(gate, tcp_frame(kGuest, 1000, ip("127.0.0.1"), 8080)), Way::kDeny);
  EXPECT_EQ(way(gate, tcp_frame(kGuest6, 1000, ip("fd00:2::2"), 8080)), Way::kPass);
  EXPECT_EQ(way(gate, tcp_frame(kGuest6, 1000, ip("fd00:2::2"), 22)), Way::kDeny);
}

TEST(GuestGateTest, DeniedRangesAreDeniedToEachProtocol) {
  const GuestGate gate = gate_of("deny=[192.0.2.0/24]");
  for (const char* address : {"192.0.2.1", "169.254.169.254"}) {
    EXPECT_EQ(way(gate, tcp_frame(kGuest, 1000, ip(address), 80)), Way::kDeny) << address;
    EXPECT_EQ(way(gate, udp_frame(kGuest, 1000, ip(address), 80, {1})), Way::kDeny) << address;
    EXPECT_EQ(way(gate, icmp_frame(kGuest, ip(address), 8)), Way::kDeny) << address;
  }
}

TEST(GuestGateTest, AddressesAreTheGuestsOwn) {
  const GuestGate gate = gate_of();
  for (const char* address : {"10.0.2.2", "10.0.2.3", "10.0.2.0", "10.0.2.255", "10.0.3.15",
                              "8.8.8.8", "127.0.0.1", "0.0.0.0"}) {
    EXPECT_EQ(way(gate, udp_frame(ip(address), 1000, kServer, 80, {1})), Way::kRefuse) << address;
    if (ip(address).is_zero()) continue;
    EXPECT_EQ(way(gate, arp_request(ip(address), kGuest)), Way::kRefuse) << address;
  }
  for (const char* address : {"fd00:2::2", "fd00:2::3", "fd00:3::15", "::1", "::", "fe80::2"}) {
    EXPECT_EQ(way(gate, udp_frame(ip(address), 1000, kServer6, 80, {1})), Way::kRefuse) << address;
  }
  EXPECT_EQ(way(gate, udp_frame(kLink, 1000, kServer6, 80, {1})), Way::kIgnore);
  Bytes others_name = arp_request(kGuest, ip("10.0.2.2"));
  others_name[kEthernetHeaderBytes + 8] ^= 2;
  EXPECT_EQ(way(gate, others_name), Way::kRefuse);
  Bytes from_many = tcp_frame(kGuest, 1000, kServer, 80);
  from_many[6] |= 1;
  EXPECT_EQ(way(gate, from_many), Way::kRefuse);
}

TEST(GuestGateTest, NeighbourDiscoveryIsOfAGuestOnItsLink) {
  const GuestGate gate = gate_of();
  EXPECT_EQ(way(gate, icmp_frame(kLink, ip("ff02::1"), 134, Bytes(12), 255)), Way::kRefuse);
  EXPECT_EQ(way(gate, icmp_frame(kLink, ip("ff02::1"), 137, Bytes(36), 255)), Way::kRefuse);
  EXPECT_EQ(way(gate, icmp_frame(kLink, ip("ff02::2"), 133, Bytes(4), 64)), Way::kRefuse);
  EXPECT_EQ(way(gate, neighbour_advertisement(ip("fd00:2::2"), ip("ff02::1"))), Way::kRefuse);
}

TEST(GuestGateTest, MulticastAndBroadcastReachNobody) {
  const GuestGate gate = gate_of();
  for (const char* address : {"224.0.0.251", "255.255.255.255", "10.0.2.255"}) {
    EXPECT_EQ(way(gate, udp_frame(kGuest, 5353, ip(address), 5353, {1})), Way::kIgnore) << address;
  }
  EXPECT_EQ(way(gate, udp_frame(kGuest6, 5353, ip("ff02::fb"), 5353, {1})), Way::kIgnore);
}

TEST(GuestGateTest, NothingHidesAPort) {
  const GuestGate gate = gate_of("deny=[192.0.2.0/24:25]");
  const Bytes whole = tcp_frame(kGuest, 1000, kServer, 25);
  ASSERT_EQ(way(gate, whole), Way::kDeny);
  constexpr size_t kIp = kEthernetHeaderBytes;
  // Fragments: the first, another, the last; and the reserved bit.
  for (auto [high, low] : {std::pair(0x20, 0), {0x20, 1}, {0, 1}, {0x60, 0}, {0x80, 0}}) {
    Bytes piece = whole;
    piece[kIp + 6] = static_cast<uint8_t>(high);
    piece[kIp + 7] = static_cast<uint8_t>(low);
    EXPECT_EQ(way(gate, piece), Way::kRefuse) << high << "," << low;
  }
  Bytes options = whole;
  options[kIp] = 0x46;
  EXPECT_EQ(way(gate, options), Way::kRefuse);
  for (int protocol : {0, 2, 4, 41, 47, 58, 132, 136}) {
    Bytes other = whole;
    other[kIp + 9] = static_cast<uint8_t>(protocol);
    EXPECT_EQ(way(gate, other), Way::kRefuse) << protocol;
  }
  const Bytes whole6 = tcp_frame(kGuest6, 1000, kServer6, 25);
  for (int next : {0, 1, 4, 41, 43, 44, 50, 51, 59, 60, 135}) {
    Bytes other = whole6;
    other[kIp + 6] = static_cast<uint8_t>(next);
    EXPECT_EQ(way(gate, other), Way::kRefuse) << next;
  }
  for (size_t type : {0x8100, 0x88a8, 0x88f8, 0x8864}) {
    Bytes other = whole;
    store_be16(&other[12], static_cast<uint16_t>(type));
    EXPECT_EQ(way(gate, other), Way::kRefuse) << type;
  }
  for (int flags : {0x03, 0x06, 0x22, 0x07}) {
    EXPECT_EQ(
        way(gate, tcp_frame(kGuest, 1000, kServer, 80, {.flags = static_cast<uint8_t>(flags)})),
        Way::kRefuse)
        << flags;
  }
}

TEST(GuestGateTest, LengthsLieInTheFrame) {
  const GuestGate gate = gate_of();
  for (const Bytes& whole :
       {tcp_frame(kGuest, 1, kServer, 80, {.data = Bytes(9)}),
        udp_frame(kGuest, 1, kServer, 80, {}), udp_frame(kGuest6, 1, kServer6, 80, Bytes(3)),
        tcp_frame(kGuest6, 1, kServer6, 80), icmp_frame(kGuest, kServer, 8),
        icmp_frame(kGuest6, kServer6, 128), arp_request(kGuest, ip("10.0.2.2"))}) {
    ASSERT_NE(way(gate, whole), Way::kRefuse);
    EXPECT_NE(way(gate, whole + Bytes(30)), Way::kRefuse) << "padding";
    for (size_t size = 0; size < whole.size(); ++size) {
      EXPECT_EQ(way(gate, Bytes(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size))),
                Way::kRefuse)
          << size;
    }
  }
  Bytes udp = udp_frame(kGuest, 1, kServer, 80, Bytes(10));
  store_be16(&udp[kEthernetHeaderBytes + 24], 17);
  EXPECT_EQ(way(gate, udp), Way::kRefuse) << "two lengths";
  Bytes tcp = tcp_frame(kGuest, 1, kServer, 80);
  tcp[kEthernetHeaderBytes + 32] = 0x60;
  EXPECT_EQ(way(gate, tcp), Way::kRefuse) << "options past the end";
  EXPECT_EQ(way(gate, udp_frame(kGuest, 0, kServer, 80, {1})), Way::kRefuse);
  EXPECT_EQ(way(gate, udp_frame(kGuest, 1, kServer, 0, {1})), Way::kRefuse);
}

TEST(GuestGateTest, AForwardedPortAnswersThoseThatItHasHeard) {
  const auto now = GuestGate::Clock::now();
  GuestGate gate = gate_of("forward=[udp:5000-:5000,tcp:6000-:6000]");
  const auto from = [&](uint16_t port, const IpAddress& to, uint16_t to_port,
                        GuestGate::Clock::time_point when) {
    return gate.judge(udp_frame(kGuest, port, to, to_port, {1}), when).way;
  };
  const IpAddress gateway = ip("10.0.2.2");
  EXPECT_EQ(from(5000, gateway, 7777, now), Way::kDeny);
  gate.note_for_guest(udp_frame(gateway, 7777, kGuest, 5000, {1}), now);
  EXPECT_EQ(from(5000, gateway, 7777, now), Way::kPass);
  EXPECT_EQ(from(5000, gateway, 7778, now), Way::kDeny);
  EXPECT_EQ(from(5001, gateway, 7777, now), Way::kDeny);
  EXPECT_EQ(from(5000, gateway, 7777, now + std::chrono::seconds(241)), Way::kDeny);
  gate.note_for_guest(udp_frame(gateway, 7777, kGuest, 6000, {1}), now);
  EXPECT_EQ(from(6000, gateway, 7777, now), Way::kDeny) << "forwarded for TCP alone";
  // Many peers: bounded, and the last ones are known.
  for (uint16_t port = 1; port < 3000; ++port) {
    gate.note_for_guest(udp_frame(gateway, port, kGuest, 5000, {1}),
                        now + std::chrono::milliseconds(port));
  }
  EXPECT_EQ(from(5000, gateway, 2999, now + std::chrono::seconds(3)), Way::kPass);
  EXPECT_EQ(from(5000, gateway, 1, now + std::chrono::seconds(3)), Way::kDeny);
}

TEST(GuestGateTest, APortOfAllAddressesAnswersNobodyWhomThePolicyDenies) {
  const auto now = GuestGate::Clock::now();
  GuestGate gate = gate_of("forward=[udp:0.0.0.0:5000-:5000]");
  const auto answer_to = [&](const IpAddress& to) {
    gate.note_for_guest(udp_frame(to, 7777, kGuest, 5000, {1}), now);
    return gate.judge(udp_frame(kGuest, 5000, to, 7777, {1}), now).way;
  };
  EXPECT_EQ(answer_to(kServer), Way::kPass);
  EXPECT_EQ(answer_to(ip("10.0.2.2")), Way::kDeny) << "anybody may say that he is the gateway";
  EXPECT_EQ(answer_to(ip("169.254.169.254")), Way::kDeny);
}

TEST(GuestFrameTest, UrgentDataBecomesPlainData) {
  for (const auto& [from, to] : {std::pair(kGuest, kServer), std::pair(kGuest6, kServer6)}) {
    const TcpSegment plain{.flags = kTestAck, .data = {1, 2, 3}};
    const Bytes expected = tcp_frame(from, 1000, to, 80, plain);
    const auto read = std::get<IpFrame>(read_guest_frame(expected));
    // As a guest sends it: the checksum covers the flag and a pointer beyond the data.
    Bytes payload(expected.begin() + static_cast<ptrdiff_t>(read.payload_at), expected.end());
    payload[13] |= 0x20;
    store_be16(&payload[18], 0xfffe);
    store_be16(&payload[16], 0);
    Bytes urgent = ip_frame(from, to, kProtocolTcp, payload, 16);
    clear_urgent(urgent, read);
    EXPECT_EQ(urgent, expected);
    clear_urgent(urgent, read);
    EXPECT_EQ(urgent, expected);
  }
}

TEST(GuestGateTest, OtherNetworks) {
  const GuestGate gate = gate_of("ipv4-network=192.168.64.0/20,ipv6-network=\"fd12:3456::/64\"");
  EXPECT_EQ(way(gate, tcp_frame(ip("192.168.70.1"), 1, kServer, 80)), Way::kPass);
  EXPECT_EQ(way(gate, tcp_frame(kGuest, 1, kServer, 80)), Way::kRefuse);
  EXPECT_EQ(way(gate, tcp_frame(ip("192.168.64.2"), 1, kServer, 80)), Way::kRefuse);
  EXPECT_EQ(way(gate, tcp_frame(ip("192.168.79.255"), 1, kServer, 80)), Way::kRefuse);
  EXPECT_EQ(way(gate, udp_frame(ip("192.168.70.1"), 1, ip("192.168.64.3"), 53, {})), Way::kPass);
  EXPECT_EQ(way(gate, tcp_frame(ip("fd12:3456::9"), 1, kServer6, 80)), Way::kPass);
}

}  // namespace
}  // namespace crosvm
