#include "devices/net/user/user_net_port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>

#include <algorithm>
#include <fstream>

#include "base/format.h"
#include "devices/net/user/rig/test_network.h"

namespace crosvm {
namespace {

using std::chrono::milliseconds;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

const IpAddress kGuest = ip("10.0.2.15");
const IpAddress kGuest6 = ip("fd00:2::15");
const IpAddress kServer = ip("192.0.2.1");
const IpAddress kServer6 = ip("2001:db8::1");
const IpAddress kLoopback = ip("127.0.0.1");

class UserNetPortTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = enter_test_network(); !why.empty()) GTEST_SKIP() << why;
  }
};

TEST_F(UserNetPortTest, TheGuestGetsItsAddressByDhcp) {
  TestGuest guest;
  guest.send(dhcp_discover());
  const auto offer = guest.wait_protocol(kProtocolUdp);
  ASSERT_TRUE(offer);
  const Bytes bootp = offer->payload();
  EXPECT_EQ(Bytes(bootp.begin() + 16, bootp.begin() + 20), bytes_of(kGuest));
  const auto has = [&](const Bytes& option) { return !std::ranges::search(bootp, option).empty(); };
  EXPECT_TRUE(has(Bytes{3, 4, 10, 0, 2, 2})) << "the gateway";
  EXPECT_TRUE(has(Bytes{6, 4, 10, 0, 2, 3})) << "the resolver";
  EXPECT_TRUE(has(Bytes{1, 4, 255, 255, 255, 0})) << "the mask";
}

TEST_F(UserNetPortTest, ManyCardsAskForAddressesAndTheFirstOnesAreServed) {
  TestGuest guest;
  int answered = 0;
  for (int card = 0; card < 300; ++card) {
    const auto number = static_cast<uint16_t>(card);
    guest.send(dhcp_discover(
        {0x02, 0, 0, 1, static_cast<uint8_t>(number >> 8), static_cast<uint8_t>(number & 0xff)}));
    guest.idle(milliseconds(1));
    answered += guest.take_all().empty() ? 0 : 1;
  }
  EXPECT_EQ(answered, 16);
  guest.send(dhcp_discover({0x02, 0, 0, 1, 0, 7}));
  EXPECT_TRUE(guest.wait_protocol(kProtocolUdp)) << "who has an address keeps it";
}

TEST_F(UserNetPortTest, PaddingIsNoData) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    TestGuest guest;
    guest.announce();
    const Fd server = bound_socket(SOCK_DGRAM, v6 ? kServer6 : kServer);
    Bytes frame = udp_frame(v6 ? kGuest6 : kGuest, 1234, v6 ? kServer6 : kServer, port_of(server),
                            bytes_of("four"));
    frame.resize(frame.size() + 30, 'x');
    guest.send(frame);
    EXPECT_EQ(host_receives(guest, server), bytes_of("four"));
  }
}

TEST_F(UserNetPortTest, RoutersAndAddressesAreAnswered) {
  TestGuest guest;
  guest.send(arp_request(kGuest, ip("10.0.2.2")));
  guest.idle(milliseconds(20));
  const auto frames = guest.take_all();
  ASSERT_FALSE(frames.empty());
  EXPECT_EQ(load_be16(&frames[0][12]), kEtherTypeArp);
  guest.announce();
  guest.send(router_solicitation(ip("fe80::1:2:3")));
  const auto advertised = guest.wait([](const IpFrame& ip) { return ip.icmp_type == 134; });
  ASSERT_TRUE(advertised);
  EXPECT_FALSE(std::ranges::search(advertised->frame, bytes_of(ip("fd00:2::"))).empty());
  EXPECT_FALSE(std::ranges::search(advertised->frame, bytes_of(ip("fd00:2::3"))).empty())
      << "the resolver of IPv6";
}

TEST_F(UserNetPortTest, DatagramsGoBothWays) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    TestGuest guest;
    guest.announce();
    const Fd server = bound_socket(SOCK_DGRAM, v6 ? kServer6 : kServer);
    const IpAddress here = v6 ? kGuest6 : kGuest;
    const IpAddress there = v6 ? kServer6 : kServer;
    guest.send(udp_frame(here, 4000, there, port_of(server), bytes_of("hello")));
    sockaddr_storage from{};
    EXPECT_EQ(host_receives(guest, server, &from), bytes_of("hello"));
    const Bytes answer = bytes_of("and back");
    EXPECT_GT(::sendto(server.get(), answer.data(), answer.size(), 0,
                       reinterpret_cast<sockaddr*>(&from), sizeof(from)),
              0);
    const auto got = guest.wait_protocol(kProtocolUdp);
    ASSERT_TRUE(got);
    EXPECT_EQ(got->payload(), answer);
    EXPECT_EQ(got->ip.source, there);
    EXPECT_EQ(got->ip.source_port, port_of(server));
    EXPECT_EQ(got->ip.destination, here);
    EXPECT_EQ(got->ip.destination_port, 4000);
  }
}

TEST_F(UserNetPortTest, AFlowThatBeginsAfterALongSilenceLives) {
  TestGuest guest;
  guest.announce();
  const Fd server = bound_socket(SOCK_DGRAM, kServer);
  guest.idle(milliseconds(300));
  guest.send(udp_frame(kGuest, 4000, kServer, port_of(server), bytes_of("hello")));
  EXPECT_EQ(host_receives(guest, server), bytes_of("hello"));
  guest.idle(milliseconds(1200));
  EXPECT_EQ(guest.port().flows().udp(), 1U);
}

TEST_F(UserNetPortTest, ConnectionsGoBothWaysAndEnd) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    TestGuest guest;
    guest.announce();
    const Fd listener = bound_socket(SOCK_STREAM, v6 ? kServer6 : kServer);
    TestConnection connection{.guest = guest,
                              .here = v6 ? kGuest6 : kGuest,
                              .here_port = 4001,
                              .there = v6 ? kServer6 : kServer,
                              .there_port = port_of(listener)};
    ASSERT_TRUE(connection.connect());
    const Fd server = host_accepts(guest, listener);
    ASSERT_TRUE(server);
    EXPECT_EQ(guest.port().flows().tcp(), 1U);
    connection.send(kTestAck | kTestPush, bytes_of("hello"));
    EXPECT_EQ(host_receives(guest, server), bytes_of("hello"));
    EXPECT_EQ(::send(server.get(), "and back", 8, 0), 8);
    EXPECT_EQ(connection.data(), bytes_of("and back"));
    connection.send(kTestAck | 1);  // FIN
    EXPECT_EQ(host_receives(guest, server), Bytes());
  }
}

TEST_F(UserNetPortTest, NobodyListensIsToldAtOnce) {
  TestGuest guest;
  guest.announce();
  guest.send(tcp_frame(kGuest, 4002, kServer, 1));
  const auto answer = guest.wait_protocol(kProtocolTcp);
  ASSERT_TRUE(answer);
  EXPECT_TRUE(answer->ip.tcp_flags & 4) << "a reset";
}

TEST_F(UserNetPortTest, NamesAreAskedOfTheHostsResolver) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    TestGuest guest;
    guest.announce();
    const Fd resolver = bound_socket(SOCK_DGRAM, v6 ? kServer6 : kServer, 53);
    guest.send(udp_frame(v6 ? kGuest6 : kGuest, 4003, v6 ? ip("fd00:2::3") : ip("10.0.2.3"), 53,
                         bytes_of("a question")));
    sockaddr_storage from{};
    EXPECT_EQ(host_receives(guest, resolver, &from), bytes_of("a question"));
    EXPECT_EQ(
        ::sendto(resolver.get(), "answer", 6, 0, reinterpret_cast<sockaddr*>(&from), sizeof(from)),
        6);
    const auto got = guest.wait_protocol(kProtocolUdp);
    ASSERT_TRUE(got);
    EXPECT_EQ(got->payload(), bytes_of("answer"));
    EXPECT_EQ(got->ip.source, v6 ? ip("fd00:2::3") : ip("10.0.2.3"));
  }
}

TEST_F(UserNetPortTest, TheHostsLoopbackIsDeniedAndTheGuestIsTold) {
  TestGuest guest;
  guest.announce();
  const Fd listener = bound_socket(SOCK_STREAM, kLoopback);
  const Fd listener6 = bound_socket(SOCK_STREAM, ip("::1"));
  for (const char* name : {"10.0.2.2", "127.0.0.1"}) {
    guest.send(tcp_frame(kGuest, 4004, ip(name), port_of(listener)));
    EXPECT_TRUE(is_prohibited(guest.wait_protocol(kProtocolIcmp))) << name;
  }
  for (const char* name : {"fd00:2::2", "::1", "::ffff:127.0.0.1"}) {
    guest.send(tcp_frame(kGuest6, 4004, ip(name), port_of(listener6)));
    EXPECT_TRUE(is_prohibited(guest.wait_protocol(kProtocolIcmpv6))) << name;
  }
  guest.idle(milliseconds(50));
  EXPECT_EQ(::accept(listener.get(), nullptr, nullptr), -1);
  EXPECT_EQ(::accept(listener6.get(), nullptr, nullptr), -1);
}

TEST_F(UserNetPortTest, AnAllowedPortOfTheLoopbackIsReachedByTheGateway) {
  const Fd listener = bound_socket(SOCK_STREAM, kLoopback);
  TestGuest guest(format_text("allow=[\"127.0.0.1:{}\"]", port_of(listener)));
  guest.announce();
  TestConnection connection{guest, kGuest, 4005, ip("10.0.2.2"), port_of(listener)};
  EXPECT_TRUE(connection.connect());
  EXPECT_TRUE(host_accepts(guest, listener));
  const Fd other = bound_socket(SOCK_STREAM, kLoopback);
  guest.send(tcp_frame(kGuest, 4006, ip("10.0.2.2"), port_of(other)));
  EXPECT_TRUE(is_prohibited(guest.wait_protocol(kProtocolIcmp)));
}

TEST_F(UserNetPortTest, DeniedRangesAreRefused) {
  const Fd listener = bound_socket(SOCK_STREAM, kServer);
  const Fd datagrams = bound_socket(SOCK_DGRAM, kServer6);
  TestGuest guest("deny=[192.0.2.0/24,\"2001:db8::/32\"]");
  guest.announce();
  guest.send(tcp_frame(kGuest, 4007, kServer, port_of(listener)));
  EXPECT_TRUE(is_prohibited(guest.wait_protocol(kProtocolIcmp)));
  guest.send(udp_frame(kGuest6, 4007, kServer6, port_of(datagrams), {1}));
  EXPECT_TRUE(is_prohibited(guest.wait_protocol(kProtocolIcmpv6)));
  guest.idle(milliseconds(50));
  EXPECT_EQ(::accept(listener.get(), nullptr, nullptr), -1);
  Bytes buffer(10);
  EXPECT_EQ(::recv(datagrams.get(), buffer.data(), buffer.size(), 0), -1);
}

TEST_F(UserNetPortTest, NothingListensThatWasNotAskedFor) {
  {
    TestGuest guest;
    guest.announce();
    guest.send(dhcp_discover());
    guest.idle(milliseconds(20));
    EXPECT_THAT(listening_sockets(), IsEmpty());
  }
  TestGuest guest(
      "forward=[tcp:8080-:80,udp:0.0.0.0:5300-10.0.2.20:53,\"tcp:[::1]:8081-:80\","
      "\"udp:[::]:8082-[fd00:2::15]:82\"]");
  EXPECT_THAT(listening_sockets(),
              UnorderedElementsAre("tcp 0100007F:1F90", "udp 00000000:14B4",
                                   "tcp6 00000000000000000000000001000000:1F91",
                                   "udp6 00000000000000000000000000000000:1F92"));
}

TEST_F(UserNetPortTest, AForwardedPortOfTcpLeadsToTheGuest) {
  TestGuest guest("forward=[tcp:8080-:80]");
  guest.announce();
  const Fd client = connected_socket(SOCK_STREAM, kLoopback, 8080);
  const auto asked = guest.wait_protocol(kProtocolTcp);
  ASSERT_TRUE(asked);
  EXPECT_EQ(asked->ip.tcp_flags, kTestSyn);
  EXPECT_EQ(asked->ip.destination, kGuest);
  EXPECT_EQ(asked->ip.destination_port, 80);
  EXPECT_EQ(asked->ip.source, ip("10.0.2.2"));
  TestConnection connection{guest, kGuest, 80, asked->ip.source, asked->ip.source_port};
  connection.acknowledged = asked->number(4) + 1;
  connection.send(kTestSyn | kTestAck);
  ASSERT_TRUE(connection.receive());
  connection.send(kTestAck | kTestPush, bytes_of("hello"));
  EXPECT_EQ(host_receives(guest, client), bytes_of("hello"));
  EXPECT_EQ(::send(client.get(), "and back", 8, 0), 8);
  EXPECT_EQ(connection.data(), bytes_of("and back"));
}

TEST_F(UserNetPortTest, AForwardedPortOfUdpLeadsToTheGuestAndBack) {
  TestGuest guest("forward=[udp:5000-:5001]");
  guest.announce();
  const Fd client = connected_socket(SOCK_DGRAM, kLoopback, 5000);
  EXPECT_EQ(::send(client.get(), "hello", 5, 0), 5);
  const auto got = guest.wait_protocol(kProtocolUdp);
  ASSERT_TRUE(got);
  EXPECT_EQ(got->payload(), bytes_of("hello"));
  EXPECT_EQ(got->ip.destination_port, 5001);
  guest.send(udp_frame(kGuest, 5001, got->ip.source, got->ip.source_port, bytes_of("and back")));
  EXPECT_EQ(host_receives(guest, client), bytes_of("and back"));
}

TEST_F(UserNetPortTest, APortThatIsTakenIsNamed) {
  const Fd taken = bound_socket(SOCK_STREAM, kLoopback);
  auto loop = *EventLoop::create();
  const std::string text = format_text("forward=[tcp:{}-:80]", port_of(taken));
  auto port = UserNetPort::create(*loop, *UserNetConfig::parse(*KeyValues::parse(text)));
  ASSERT_FALSE(port.has_value());
  EXPECT_EQ(port.error().what(),
            format_text("forward=tcp:127.0.0.1:{}-:80: listening on 127.0.0.1:{}: Address already "
                        "in use; give it another port of the host",
                        port_of(taken), port_of(taken)));
}

TEST_F(UserNetPortTest, ConnectionsToAForwardedPortAreBounded) {
  TestGuest guest("forward=[tcp:8080-:80]", {.tcp = 2, .udp = 2});
  guest.announce();
  std::vector<Fd> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(connected_socket(SOCK_STREAM, kLoopback, 8080));
  guest.idle(milliseconds(200));
  EXPECT_EQ(guest.port().flows().tcp(), 2U);
}

TEST_F(UserNetPortTest, AGuestThatDoesNotReceiveMakesNobodyGrow) {
  TestGuest guest;
  guest.announce();
  const Fd server = bound_socket(SOCK_DGRAM, kServer);
  guest.send(udp_frame(kGuest, 7000, kServer, port_of(server), {1}));
  sockaddr_storage from{};
  host_receives(guest, server, &from);
  guest.port().listen(false);
  const Bytes large(1400);
  size_t sent = 0;
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 200; ++i) {
      sent += ::sendto(server.get(), large.data(), large.size(), 0,
                       reinterpret_cast<sockaddr*>(&from), sizeof(from)) > 0;
    }
    guest.idle(milliseconds(5));
  }
  ASSERT_EQ(sent, 8000U);  // 11 MB
  // And the answers to what it sends itself, with nothing held back:
  for (int i = 0; i < 100'000; ++i) guest.send(udp_frame(kGuest, 7001, kLoopback, 1, {1}));
  guest.port().listen(true);
  guest.idle(milliseconds(500));
  size_t bytes = 0;
  for (const Bytes& frame : guest.take_all()) bytes += frame.size();
  // And what the kernel had kept, which is read as soon as there is room again.
  EXPECT_LE(bytes, UserNetPort::kQueueBytes + (size_t{1} << 20));
  EXPECT_GT(bytes, UserNetPort::kHoldBytes / 2);
}

TEST_F(UserNetPortTest, PingsAreSentOn) {
  if (!may_ping()) GTEST_SKIP() << "ping_group_range cannot be set here";
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    TestGuest guest;
    guest.announce();
    const Bytes rest = Bytes{0x12, 0x34, 0, 7} + bytes_of("how far?");
    guest.send(icmp_frame(v6 ? kGuest6 : kGuest, v6 ? kServer6 : kServer, v6 ? 128 : 8, rest));
    const auto answer = guest.wait([&](const IpFrame& ip) {
      return ip.icmp_type == (v6 ? 129 : 0) && ip.source == (v6 ? kServer6 : kServer);
    });
    ASSERT_TRUE(answer);
    const uint8_t* message = &answer->frame[answer->ip.payload_at];
    EXPECT_EQ(Bytes(message + 4, message + 4 + rest.size()), rest);
    // As the guest checks it.
    uint32_t sum = 0;
    if (v6) {
      sum =
          add_to_checksum(answer->ip.destination.span(), add_to_checksum(answer->ip.source.span()));
      sum += static_cast<uint32_t>(4 + rest.size()) + kProtocolIcmpv6;
    }
    EXPECT_EQ(internet_checksum(add_to_checksum({message, 4 + rest.size()}, sum)), 0);
  }
}

TEST_F(UserNetPortTest, ProgramsThatPingAreBounded) {
  if (!may_ping()) GTEST_SKIP() << "ping_group_range cannot be set here";
  auto loop = *EventLoop::create();
  EchoRelay relay(*loop, [](std::span<const uint8_t>) {});
  for (size_t id = 0; id < 3 * EchoRelay::kMostSockets; ++id) {
    const Bytes frame = icmp_frame(kGuest, kServer, 8, be16(id) + be16(1));
    EXPECT_TRUE(relay.send(frame, std::get<IpFrame>(read_guest_frame(frame))));
  }
  EXPECT_EQ(relay.sockets(), EchoRelay::kMostSockets);
}

TEST_F(UserNetPortTest, TheGatewayAnswersPingsItself) {
  TestGuest guest;
  guest.announce();
  guest.send(icmp_frame(kGuest, ip("10.0.2.2"), 8));
  const auto answer = guest.wait_protocol(kProtocolIcmp);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->ip.icmp_type, 0);
}

}  // namespace
}  // namespace crosvm
