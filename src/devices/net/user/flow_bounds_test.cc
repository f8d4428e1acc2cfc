// How many flows there may be, who makes room for whom, and what a guest, a peer or a slow network
// can make the process do.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <malloc.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "base/format.h"
#include "devices/net/user/rig/test_network.h"

namespace crosvm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const IpAddress kGuest = ip("10.0.2.15");
const IpAddress kGuest6 = ip("fd00:2::15");
const IpAddress kServer = ip("192.0.2.1");
const IpAddress kServer6 = ip("2001:db8::1");
const IpAddress kLoopback = ip("127.0.0.1");
constexpr uint8_t kTestRst = 4;

class FlowBoundsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = enter_test_network(); !why.empty()) GTEST_SKIP() << why;
  }
};

/// How a connection to a forwarded port reaches the guest: its SYN.
std::optional<TestGuest::Received> coming(TestGuest& guest, uint16_t port,
                                          milliseconds patience = seconds(10)) {
  return guest.wait(
      [&](const IpFrame& ip) {
        return ip.protocol == kProtocolTcp && ip.tcp_flags == kTestSyn &&
               ip.destination_port == port;
      },
      patience);
}
/// The guest's side of it, answered.
TestConnection answered(TestGuest& guest, const TestGuest::Received& syn) {
  TestConnection connection{guest, syn.ip.destination, syn.ip.destination_port, syn.ip.source,
                            syn.ip.source_port};
  connection.acknowledged = syn.number(4) + 1;
  connection.send(kTestSyn | kTestAck);
  EXPECT_TRUE(connection.receive());
  return connection;
}
/// Whether the other side of a connection has ended it.
bool is_ended(TestGuest& guest, const Fd& socket) {
  char byte;
  for (int tries = 0; tries < 1000; ++tries) {
    const ssize_t got = ::recv(socket.get(), &byte, 1, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN)) return true;
    guest.idle(milliseconds(5));
  }
  return false;
}

TEST_F(FlowBoundsTest, TheSocketForDatagramsThatIsSilentLongestMakesRoom) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    TestGuest guest("", {.udp = 2});
    guest.announce();
    const IpAddress here = v6 ? kGuest6 : kGuest;
    const IpAddress there = v6 ? kServer6 : kServer;
    const Fd server = bound_socket(SOCK_DGRAM, there);
    const auto port_for = [&](uint16_t port) {
      sockaddr_storage from{};
      guest.send(udp_frame(here, port, there, port_of(server), {1}));
      EXPECT_EQ(host_receives(guest, server, &from), Bytes{1});
      guest.idle(milliseconds(30));  // more than the library's time is behind
      return reinterpret_cast<sockaddr_in6&>(from).sin6_port;  // at the same place in both
    };
    const auto first = port_for(6000);
    const auto second = port_for(6001);
    EXPECT_EQ(port_for(6000), first);
    port_for(6002);
    EXPECT_EQ(guest.port().flows().udp(), 2U);
    EXPECT_EQ(port_for(6000), first) << "it was not the one that was silent longest";
    EXPECT_NE(port_for(6001), second);
  }
}

TEST_F(FlowBoundsTest, TheGatewaysOwnServicesNeedNoRoom) {
  TestGuest guest("forward=[udp:5000-:5001]", {.tcp = 1, .udp = 0});
  guest.announce();
  guest.send(dhcp_discover());
  EXPECT_TRUE(guest.wait_protocol(kProtocolUdp));
  Bytes renewal = dhcp_discover();  // as later, when it has an address
  const Bytes bootp(renewal.begin() + kEthernetHeaderBytes + 28, renewal.end());
  guest.send(udp_frame(kGuest, 68, ip("10.0.2.2"), 67, bootp));
  EXPECT_TRUE(guest.wait_protocol(kProtocolUdp));
  guest.send(arp_request(kGuest, ip("10.0.2.2")));
  guest.idle(milliseconds(20));
  EXPECT_FALSE(guest.take_all().empty());
  guest.send(udp_frame(ip("fe80::1:2:3"), 546, ip("ff02::1:2"), 547,
                       {11, 1, 2, 3, 0, 6, 0, 2, 0, 23}));  // who resolves names?
  const auto told = guest.wait_protocol(kProtocolUdp);
  ASSERT_TRUE(told);
  const Bytes names = told->payload();
  EXPECT_FALSE(std::ranges::search(names, bytes_of(ip("fd00:2::3"))).empty());
  // A forwarded port has its socket already.
  const Fd client = connected_socket(SOCK_DGRAM, kLoopback, 5000);
  EXPECT_EQ(::send(client.get(), "hello", 5, 0), 5);
  const auto got = guest.wait_protocol(kProtocolUdp);
  ASSERT_TRUE(got);
  guest.send(udp_frame(kGuest, 5001, got->ip.source, got->ip.source_port, bytes_of("back")));
  EXPECT_EQ(host_receives(guest, client), bytes_of("back"));
  guest.send(udp_frame(kGuest, 5002, kServer, 80, {1}));
  EXPECT_TRUE(is_prohibited(guest.wait_protocol(kProtocolIcmp))) << "all others do";
}

TEST_F(FlowBoundsTest, ConnectionsThatAreInUseStay) {
  TestGuest guest("", {.tcp = 2});
  guest.announce();
  const Fd listener = bound_socket(SOCK_STREAM, kServer);
  std::vector<TestConnection> connections;
  for (uint16_t port : {6000, 6001}) {
    connections.push_back({guest, kGuest, port, kServer, port_of(listener)});
    ASSERT_TRUE(connections.back().connect());
  }
  guest.send(tcp_frame(kGuest, 6002, kServer, port_of(listener)));
  EXPECT_TRUE(is_prohibited(guest.wait_protocol(kProtocolIcmp)));
  EXPECT_EQ(guest.port().flows().tcp(), 2U);
  // Whoever asks again, as after a SYN that was lost, has his place.
  guest.send(tcp_frame(kGuest, 6001, kServer, port_of(listener)));
  EXPECT_FALSE(guest.wait([](const IpFrame& ip) { return ip.protocol == kProtocolIcmp; },
                          milliseconds(100)));
  // A reset makes room.
  connections[0].send(kTestRst);
  guest.idle(milliseconds(50));
  TestConnection another{guest, kGuest, 6004, kServer, port_of(listener)};
  EXPECT_TRUE(another.connect());
}

TEST_F(FlowBoundsTest, AConnectionThatBeginsAnewIsCounted) {
  TestGuest guest("", {.tcp = 2});
  guest.announce();
  const Fd listener = bound_socket(SOCK_STREAM, kServer);
  constexpr uint8_t kFin = 1;
  for (uint32_t round = 0; round < 3; ++round) {
    SCOPED_TRACE(round);
    // Beyond what the one before would take.
    TestConnection connection{.guest = guest,
                              .here = kGuest,
                              .here_port = 6000,
                              .there = kServer,
                              .there_port = port_of(listener),
                              .next = 1000 + (round << 20)};
    ASSERT_TRUE(connection.connect());
    EXPECT_EQ(guest.port().flows().tcp(), 1U);
    // The server says all first: the library keeps the connection for a while.
    host_accepts(guest, listener);
    const auto end = connection.receive();
    ASSERT_TRUE(end);
    EXPECT_TRUE(end->ip.tcp_flags & kFin);
    ++connection.acknowledged;
    connection.send(kTestAck | kFin);
    EXPECT_TRUE(connection.receive());
    EXPECT_EQ(guest.port().flows().tcp(), 1U);
  }
}

TEST_F(FlowBoundsTest, AnIdleConnectionMakesRoom) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    TestGuest guest("", {.tcp = 2, .silence = milliseconds(200)});
    guest.announce();
    const Fd listener = bound_socket(SOCK_STREAM, v6 ? kServer6 : kServer);
    const auto connection = [&](uint16_t port) {
      return TestConnection{guest, v6 ? kGuest6 : kGuest, port, v6 ? kServer6 : kServer,
                            port_of(listener)};
    };
    TestConnection first = connection(6000);
    ASSERT_TRUE(first.connect());
    const Fd first_host = host_accepts(guest, listener);
    first.send(kTestAck | kTestPush, bytes_of("some data"));
    EXPECT_EQ(host_receives(guest, first_host), bytes_of("some data"));
    TestConnection second = connection(6001);
    ASSERT_TRUE(second.connect());
    guest.idle(milliseconds(250));
    second.send(kTestAck);
    TestConnection third = connection(6002);
    EXPECT_TRUE(third.connect());
    EXPECT_EQ(guest.port().flows().tcp(), 2U);
    EXPECT_TRUE(is_ended(guest, first_host));
    first.send(kTestAck | kTestPush, {1});
    const auto answer = first.receive();
    ASSERT_TRUE(answer);
    EXPECT_TRUE(answer->ip.tcp_flags & kTestRst) << "the guest is told when it speaks";
  }
}

TEST_F(FlowBoundsTest, AConnectionThatNobodyAnswersMakesRoom) {
  TestGuest guest("", {.tcp = 1, .half_silence = milliseconds(200)});
  guest.announce();
  // Whose queue is full does not answer.
  const Fd deaf = bound_socket(SOCK_STREAM, kServer);
  ASSERT_EQ(::listen(deaf.get(), 0), 0);
  const Fd filler = connected_socket(SOCK_STREAM, kServer, port_of(deaf));
  guest.send(tcp_frame(kGuest, 6000, kServer, port_of(deaf)));
  guest.idle(milliseconds(100));
  const Fd listener = bound_socket(SOCK_STREAM, kServer);
  guest.send(tcp_frame(kGuest, 6001, kServer, port_of(listener)));
  EXPECT_TRUE(is_prohibited(guest.wait_protocol(kProtocolIcmp))) << "not at once";
  guest.idle(milliseconds(150));
  TestConnection second{guest, kGuest, 6002, kServer, port_of(listener)};
  EXPECT_TRUE(second.connect());
  EXPECT_EQ(guest.port().flows().tcp(), 1U);
}

TEST_F(FlowBoundsTest, OneForwardedPortLeavesRoomForOthersAndTheGuest) {
  TestGuest guest("forward=[tcp:8080-:80,tcp:8081-:81]",
                  {.tcp = 6, .inbound = 4, .per_forward = 3});
  guest.announce();
  std::vector<Fd> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(connected_socket(SOCK_STREAM, kLoopback, 8080));
  guest.idle(milliseconds(200));
  EXPECT_EQ(guest.port().flows().tcp(), 3U);
  for (int i = 0; i < 3; ++i) clients.push_back(connected_socket(SOCK_STREAM, kLoopback, 8081));
  EXPECT_TRUE(coming(guest, 81));
  guest.idle(milliseconds(200));
  EXPECT_EQ(guest.port().flows().tcp(), 4U);
  const Fd listener = bound_socket(SOCK_STREAM, kServer);
  TestConnection own{guest, kGuest, 6000, kServer, port_of(listener)};
  EXPECT_TRUE(own.connect());
}

TEST_F(FlowBoundsTest, AtAForwardedPortThatHasItsFillAnIdleConnectionMakesRoom) {
  for (const bool answers : {false, true}) {
    SCOPED_TRACE(answers);
    TestGuest guest(
        "forward=[tcp:8080-:80]",
        {.per_forward = 1, .silence = milliseconds(300), .half_silence = milliseconds(300)});
    guest.announce();
    const Fd first = connected_socket(SOCK_STREAM, kLoopback, 8080);
    const auto syn = coming(guest, 80);
    ASSERT_TRUE(syn);
    if (answers) answered(guest, *syn);
    guest.idle(milliseconds(1500));
    EXPECT_EQ(guest.port().flows().tcp(), 1U) << "nobody else is there";
    const Fd second = connected_socket(SOCK_STREAM, kLoopback, 8080);
    const uint16_t from = port_of(second);
    const auto next = guest.wait([&](const IpFrame& ip) { return ip.source_port == from; });
    ASSERT_TRUE(next);
    EXPECT_EQ(guest.port().flows().tcp(), 1U);
    EXPECT_TRUE(is_ended(guest, first));
    answered(guest, *next).send(kTestAck | kTestPush, bytes_of("hello"));
    EXPECT_EQ(host_receives(guest, second), bytes_of("hello"));
  }
}

TEST_F(FlowBoundsTest, WithoutDescriptorsItWaitsAndGoesOnLater) {
  TestGuest guest("forward=[tcp:8080-:80]");
  guest.announce();
  guest.idle(milliseconds(20));
  const Fd client = connected_socket(SOCK_STREAM, kLoopback, 8080);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int free = ::dup(client.get());
  ::close(free);
  rlimit none = before;
  none.rlim_cur = static_cast<rlim_t>(free);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const size_t turns = guest.idle(seconds(1));
  EXPECT_FALSE(coming(guest, 80, milliseconds(10)));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_LT(turns, 1000U) << "it does not ask again and again";
  EXPECT_TRUE(coming(guest, 80));
}

TEST_F(FlowBoundsTest, StrangersReachNoSocketForDatagrams) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    TestGuest guest;
    guest.announce();
    const IpAddress there = v6 ? kServer6 : kServer;
    const Fd server = bound_socket(SOCK_DGRAM, there);
    const Fd stranger = bound_socket(SOCK_DGRAM, there);
    guest.send(udp_frame(v6 ? kGuest6 : kGuest, 4000, there, port_of(server), {1}));
    sockaddr_storage from{};
    EXPECT_EQ(host_receives(guest, server, &from), Bytes{1});
    const auto* to = reinterpret_cast<sockaddr*>(&from);
    EXPECT_EQ(::sendto(stranger.get(), "bad", 3, 0, to, sizeof(from)), 3);
    EXPECT_EQ(::sendto(server.get(), "good", 4, 0, to, sizeof(from)), 4);
    const auto first = guest.wait_protocol(kProtocolUdp);
    ASSERT_TRUE(first);
    EXPECT_EQ(first->payload(), bytes_of("good"));
    // Whom the guest has sent to is none any more.
    guest.send(udp_frame(v6 ? kGuest6 : kGuest, 4000, there, port_of(stranger), {2}));
    EXPECT_EQ(host_receives(guest, stranger), Bytes{2});
    EXPECT_EQ(::sendto(stranger.get(), "now", 3, 0, to, sizeof(from)), 3);
    const auto second = guest.wait_protocol(kProtocolUdp);
    ASSERT_TRUE(second);
    EXPECT_EQ(second->payload(), bytes_of("now"));
  }
}

TEST_F(FlowBoundsTest, NamesComeFromTheResolverAlone) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    TestGuest guest;
    guest.announce();
    const IpAddress here = v6 ? kGuest6 : kGuest;
    const IpAddress there = v6 ? kServer6 : kServer;
    const Fd resolver = bound_socket(SOCK_DGRAM, there, 53);
    const Fd liar = bound_socket(SOCK_DGRAM, v6 ? ip("::1") : kLoopback, 53);
    const Fd server = bound_socket(SOCK_DGRAM, there);
    guest.send(udp_frame(here, 4000, v6 ? ip("fd00:2::3") : ip("10.0.2.3"), 53, {1}));
    sockaddr_storage from{};
    EXPECT_EQ(host_receives(guest, resolver, &from), Bytes{1});
    const auto* to = reinterpret_cast<sockaddr*>(&from);
    EXPECT_EQ(::sendto(liar.get(), "bad", 3, 0, to, sizeof(from)), 3);
    EXPECT_EQ(::sendto(resolver.get(), "good", 4, 0, to, sizeof(from)), 4);
    const auto answer = guest.wait_protocol(kProtocolUdp);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->payload(), bytes_of("good"));
    // The guest may use its socket for something else.
    guest.send(udp_frame(here, 4000, there, port_of(server), {2}));
    EXPECT_EQ(host_receives(guest, server, &from), Bytes{2});
    EXPECT_EQ(::sendto(server.get(), "other", 5, 0, to, sizeof(from)), 5);
    const auto other = guest.wait_protocol(kProtocolUdp);
    ASSERT_TRUE(other);
    EXPECT_EQ(other->payload(), bytes_of("other"));
  }
}

/// A network of the host on which nobody is: what is sent to it waits for an answer of ARP.
std::string make_deaf_network(Fd& card) {
  card = Fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!card) return std::string("/dev/net/tun: ") + std::strerror(errno);
  ifreq request{};
  std::strcpy(request.ifr_name, "deaf0");
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(card.get(), TUNSETIFF, &request) != 0) return "no tap";
  const std::string folder = "/proc/sys/net/ipv4/neigh/deaf0/";
  std::ofstream(folder + "unres_qlen_bytes") << "100000000";
  std::ofstream(folder + "mcast_solicit") << "20";  // a second each
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  request.ifr_flags = IFF_UP;
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) return "it does not come up";
  const SocketAddress address(ip("198.51.100.1"), 0);
  std::memcpy(&request.ifr_addr, address.get(), sizeof(sockaddr_in));
  if (::ioctl(socket.get(), SIOCSIFADDR, &request) != 0) return "no address";
  return {};
}

TEST_F(FlowBoundsTest, ASlowNetworkHoldsNobodyUp) {
  Fd card;
  if (const std::string why = make_deaf_network(card); !why.empty()) GTEST_SKIP() << why;
  TestGuest guest("forward=[udp:198.51.100.1:5000-:5000]");
  guest.announce();
  const Fd server = bound_socket(SOCK_DGRAM, kServer);
  const IpAddress nobody = ip("198.51.100.9");
  const auto begin = EventLoop::Clock::now();
  for (int i = 0; i < 2000; ++i) {
    guest.send(udp_frame(kGuest, 4000, nobody, 9, Bytes(1400)));
    guest.send(udp_frame(kGuest, 5000, nobody, 9, Bytes(1400)));
  }
  EXPECT_LT(EventLoop::Clock::now() - begin, seconds(10));
  guest.send(udp_frame(kGuest, 4001, kServer, port_of(server), {1}));
  EXPECT_EQ(host_receives(guest, server), Bytes{1});
  EXPECT_FALSE(
      guest.wait([](const IpFrame& ip) { return ip.protocol == kProtocolIcmp; }, milliseconds(50)))
      << "what does not fit is lost, as on any network";
}

TEST_F(FlowBoundsTest, SegmentsBehindGapsTakeLittleMemory) {
  TestGuest guest("mtu=9000");
  guest.announce();
  const Fd listener = bound_socket(SOCK_STREAM, kServer);
  TestConnection connection{guest, kGuest, 6000, kServer, port_of(listener)};
  ASSERT_TRUE(connection.connect());
  const Fd host = host_accepts(guest, listener);
  const uint32_t base = connection.next;
  const size_t before = ::mallinfo2().uordblks;
  for (uint32_t i = 1; i < 20'000; i += 2) {
    guest.send(tcp_frame(kGuest, 6000, kServer, port_of(listener),
                         {.sequence = base + i,
                          .acknowledged = connection.acknowledged,
                          .flags = kTestAck,
                          .data = {'x'}}));
    guest.take_all();
  }
  guest.idle(milliseconds(20));
  guest.take_all();
  EXPECT_LT(::mallinfo2().uordblks - before, size_t{4} << 20);
  // The connection goes on, once the guest sends what is not there.
  Bytes heard;
  for (uint32_t i = 0; i < 20'000; i += 1000) {
    connection.next = base + i;
    connection.send(kTestAck | kTestPush, Bytes(1000, 'x'));
    const Bytes part = host_receives(guest, host);
    heard.insert(heard.end(), part.begin(), part.end());
  }
  EXPECT_EQ(heard, Bytes(20'000, 'x'));
}

}  // namespace
}  // namespace crosvm
