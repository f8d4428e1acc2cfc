// Forwarded ports: what a program of the host, and one of the guest, see of each other. Both are
// plain sockets, on the stack of a kernel each; between them are port, gate and library.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "base/format.h"
#include "devices/net/user/rig/kernel_guest.h"
#include "devices/net/user/rig/test_network.h"

namespace crosvm {
namespace {

using std::chrono::milliseconds;
using testing::AnyOf;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr time_t kPatienceSeconds = 20;

/// A socket whose calls give up in the end.
Fd patient_socket(int type, bool v6) {
  Fd socket(::socket(v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0));
  const timeval patience{.tv_sec = kPatienceSeconds, .tv_usec = 0};
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO}) {
    EXPECT_EQ(::setsockopt(socket.get(), SOL_SOCKET, option, &patience, sizeof(patience)), 0);
  }
  return socket;
}

/// Bound, and listening if it is of TCP. It may follow one whose connections are not forgotten yet.
Fd serve_at(int type, const char* address, uint16_t port) {
  const SocketAddress at(ip(address), port);
  Fd socket = patient_socket(type, ip(address).v6);
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  EXPECT_EQ(::bind(socket.get(), at.get(), at.size), 0) << std::strerror(errno);
  EXPECT_TRUE(type == SOCK_DGRAM || ::listen(socket.get(), 200) == 0);
  return socket;
}

/// Nothing, with errno, if it is refused.
Fd reach(int type, const char* address, uint16_t port) {
  const SocketAddress to(ip(address), port);
  Fd socket = patient_socket(type, ip(address).v6);
  if (::connect(socket.get(), to.get(), to.size) == 0) return socket;
  const int error = errno;
  socket = Fd();
  errno = error;
  return {};
}
int refusal_of(const char* address, uint16_t port) {
  return reach(SOCK_STREAM, address, port) ? 0 : errno;
}

Fd accept_at(const Fd& listener) {
  Fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const timeval patience{.tv_sec = kPatienceSeconds, .tv_usec = 0};
  ::setsockopt(accepted.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  EXPECT_TRUE(accepted) << std::strerror(errno);
  return accepted;
}

void say(const Fd& socket, std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = ::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL);
    ASSERT_GT(sent, 0) << std::strerror(errno);
    text.remove_prefix(static_cast<size_t>(sent));
  }
}
/// So many bytes, or what there was.
std::string hear(const Fd& socket, size_t bytes) {
  std::string text(bytes, '\0');
  const ssize_t got = ::recv(socket.get(), text.data(), bytes, MSG_WAITALL);
  text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return text;
}
/// Up to the end of what the other side has to say.
std::string hear_all(const Fd& socket) {
  std::string all;
  std::vector<char> part(1 << 16);
  ssize_t got = 0;
  while ((got = ::recv(socket.get(), part.data(), part.size(), 0)) > 0) {
    all.append(part.data(), static_cast<size_t>(got));
  }
  EXPECT_EQ(got, 0) << std::strerror(errno);
  return all;
}
/// Which of its ends the connection came to: 0 for a good one, else errno.
int end_of(const Fd& socket) {
  char byte;
  const ssize_t got = ::recv(socket.get(), &byte, 1, 0);
  return got == 0 ? 0 : got < 0 ? errno : -1;
}
void reset(Fd socket) {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  EXPECT_EQ(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
}

/// No two parts of it alike.
std::string much(size_t bytes, uint32_t seed = 1) {
  std::string text(bytes, '\0');
  for (char& each : text) {
    seed = seed * 1664525 + 1013904223;
    each = static_cast<char>(seed >> 24);
  }
  return text;
}

/// Waits for it, as ends of connections take their time.
template <class Fact>
bool becomes_true(Fact fact) {
  for (int i = 0; i < 2000 && !fact(); ++i) std::this_thread::sleep_for(milliseconds(10));
  return fact();
}
size_t open_descriptors() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                                           std::filesystem::directory_iterator()));
}

class ForwardTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = enter_test_network(); !why.empty()) GTEST_SKIP() << why;
    if (const std::string why = KernelGuest::missing(); !why.empty()) GTEST_SKIP() << why;
  }
};

/// A forward of each protocol and what leads to it.
struct Family {
  const char* name;
  const char* config;
  const char* host;
  const char* any;      // address of a server in the guest
  const char* gateway;  // as whom the guest sees who comes from the host
};
class ForwardFamilyTest : public ForwardTest, public testing::WithParamInterface<Family> {
 protected:
  static constexpr uint16_t kHostPort = 8080;
  static constexpr uint16_t kGuestPort = 80;

  static Fd serve(const KernelGuest& guest, int type = SOCK_STREAM) {
    Fd server;
    guest.inside([&] { server = serve_at(type, GetParam().any, kGuestPort); });
    return server;
  }
  static Fd client(int type = SOCK_STREAM) { return reach(type, GetParam().host, kHostPort); }
};
INSTANTIATE_TEST_SUITE_P(Families, ForwardFamilyTest,
                         testing::Values(Family{"IPv4", "forward=[tcp:8080-:80,udp:8080-:80]",
                                                "127.0.0.1", "0.0.0.0", "10.0.2.2"},
                                         Family{"IPv6",
                                                "forward=[\"tcp:[::1]:8080-[fd00:2::15]:80\","
                                                "\"udp:[::1]:8080-[fd00:2::15]:80\"]",
                                                "::1", "::", "fd00:2::2"}),
                         [](const auto& info) { return info.param.name; });

TEST_P(ForwardFamilyTest, AConnectionCarriesBothWays) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest);
  const Fd host = client();
  ASSERT_TRUE(host) << std::strerror(errno);
  const Fd accepted = accept_at(server);
  say(host, "hello");
  EXPECT_EQ(hear(accepted, 5), "hello");
  say(accepted, "and back");
  EXPECT_EQ(hear(host, 8), "and back");
  sockaddr_in6 from{};
  socklen_t size = sizeof(from);
  ASSERT_EQ(::getpeername(accepted.get(), reinterpret_cast<sockaddr*>(&from), &size), 0);
  const SocketAddress gateway(ip(GetParam().gateway), ntohs(from.sin6_port));
  EXPECT_EQ(std::memcmp(&from, gateway.get(), ip(GetParam().gateway).v6 ? 24 : 8), 0)
      << "the guest sees the gateway";
}

TEST_P(ForwardFamilyTest, WhoHasSaidAllStillHears) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest);
  const Fd host = client();
  const Fd accepted = accept_at(server);
  say(host, "a question");
  ::shutdown(host.get(), SHUT_WR);
  EXPECT_EQ(hear_all(accepted), "a question");
  const std::string answer = much(1 << 20);
  std::thread answering([&] {
    say(accepted, answer);
    ::shutdown(accepted.get(), SHUT_WR);
  });
  EXPECT_TRUE(hear_all(host) == answer);
  answering.join();
}

TEST_P(ForwardFamilyTest, AGuestThatHasSaidAllStillHears) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest);
  const Fd host = client();
  const Fd accepted = accept_at(server);
  say(accepted, "welcome");
  ::shutdown(accepted.get(), SHUT_WR);
  EXPECT_EQ(hear_all(host), "welcome");
  const std::string rest = much(1 << 20);
  std::thread saying([&] {
    say(host, rest);
    ::shutdown(host.get(), SHUT_WR);
  });
  EXPECT_TRUE(hear_all(accepted) == rest);
  saying.join();
}

TEST_P(ForwardFamilyTest, AResetOfTheClientReachesTheGuest) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest);
  Fd host = client();
  const Fd accepted = accept_at(server);
  say(host, "x");
  EXPECT_EQ(hear(accepted, 1), "x");
  reset(std::move(host));
  EXPECT_EQ(end_of(accepted), ECONNRESET);
  EXPECT_TRUE(becomes_true([&] { return guest.tcp() == 0; }));
}

TEST_P(ForwardFamilyTest, AResetOfTheGuestEndsTheConnection) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest);
  const Fd host = client();
  Fd accepted = accept_at(server);
  say(accepted, "x");
  EXPECT_EQ(hear(host, 1), "x");
  reset(std::move(accepted));
  EXPECT_THAT(end_of(host), AnyOf(0, ECONNRESET));
  EXPECT_TRUE(becomes_true([&] { return guest.tcp() == 0; }));
}

TEST_P(ForwardFamilyTest, NobodyListensEndsTheConnection) {
  KernelGuest guest(GetParam().config);
  for (int round = 0; round < 3; ++round) {
    const Fd host = client();
    ASSERT_TRUE(host);
    EXPECT_THAT(end_of(host), AnyOf(0, ECONNRESET));
  }
  const Fd server = serve(guest);  // late, and not too late for others
  const Fd host = client();
  say(host, "x");
  EXPECT_EQ(hear(accept_at(server), 1), "x");
}

TEST_P(ForwardFamilyTest, AConnectionBeforeTheGuestIsThereIsKept) {
  KernelGuest guest(GetParam().config);
  guest.set_card_up(false);
  const Fd host = client();
  ASSERT_TRUE(host);
  say(host, "early");
  std::this_thread::sleep_for(milliseconds(300));
  guest.set_card_up(true);
  const Fd server = serve(guest);
  EXPECT_EQ(hear(accept_at(server), 5), "early");
}

TEST_P(ForwardFamilyTest, MuchAtOnceBothWays) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest);
  const Fd host = client();
  const Fd accepted = accept_at(server);
  const std::string there = much(16 << 20, 2);
  const std::string back = much(16 << 20, 3);
  std::thread to_guest([&] {
    say(host, there);
    ::shutdown(host.get(), SHUT_WR);
  });
  std::thread to_host([&] {
    say(accepted, back);
    ::shutdown(accepted.get(), SHUT_WR);
  });
  std::string heard;
  std::thread in_guest([&] { heard = hear_all(accepted); });
  EXPECT_TRUE(hear_all(host) == back);
  in_guest.join();
  EXPECT_TRUE(heard == there);
  to_guest.join();
  to_host.join();
}

TEST_P(ForwardFamilyTest, AGuestThatDoesNotReadHoldsTheClientBack) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest);
  const Fd host = client();
  const Fd accepted = accept_at(server);
  constexpr size_t kMost = 64 << 20;
  const std::string all = much(kMost);
  size_t sent = 0;
  for (int idle = 0; idle < 50 && sent < kMost;) {
    const ssize_t got = ::send(host.get(), all.data() + sent, std::min<size_t>(65536, kMost - sent),
                               MSG_DONTWAIT | MSG_NOSIGNAL);
    if (got > 0) {
      sent += static_cast<size_t>(got);
      idle = 0;
    } else {
      ++idle;
      std::this_thread::sleep_for(milliseconds(10));
    }
  }
  EXPECT_LT(sent, kMost);
  ::shutdown(host.get(), SHUT_WR);
  EXPECT_TRUE(hear_all(accepted) == all.substr(0, sent));
}

TEST_P(ForwardFamilyTest, ManyConnectionsAtOnce) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest);
  constexpr size_t kMany = 150;
  std::vector<Fd> hosts;
  for (size_t i = 0; i < kMany; ++i) {
    hosts.push_back(client());
    ASSERT_TRUE(hosts.back()) << i << ": " << std::strerror(errno);
  }
  // The guest may see them in any order.
  for (size_t i = 0; i < kMany; ++i) say(hosts[i], format_text("{:08}", i));
  std::vector<Fd> guests;
  for (size_t i = 0; i < kMany; ++i) guests.push_back(accept_at(server));
  EXPECT_EQ(guest.tcp(), kMany);
  for (const Fd& each : guests) say(each, hear(each, 8) + "!");
  for (size_t i = 0; i < kMany; ++i) EXPECT_EQ(hear(hosts[i], 9), format_text("{:08}!", i));
}

TEST_P(ForwardFamilyTest, ManyConnectionsAfterEachOtherLeaveNothing) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest);
  const size_t before = open_descriptors();
  for (int i = 0; i < 300; ++i) {
    const Fd host = client();
    ASSERT_TRUE(host) << i << ": " << std::strerror(errno);
    const Fd accepted = accept_at(server);
    say(host, "x");
    ASSERT_EQ(hear(accepted, 1), "x");
  }
  EXPECT_TRUE(becomes_true([&] { return guest.tcp() == 0; })) << guest.tcp();
  EXPECT_EQ(open_descriptors(), before);
}

TEST_P(ForwardFamilyTest, DatagramsFindTheirWayBack) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest, SOCK_DGRAM);
  const Fd clients[] = {client(SOCK_DGRAM), client(SOCK_DGRAM)};
  for (int round = 0; round < 3; ++round) {
    for (int i : {0, 1}) say(clients[i], format_text("from {}", i));
    for (int i = 0; i < 2; ++i) {
      char data[100];
      sockaddr_storage from{};
      socklen_t size = sizeof(from);
      const ssize_t got = ::recvfrom(server.get(), data, sizeof(data), 0,
                                     reinterpret_cast<sockaddr*>(&from), &size);
      ASSERT_EQ(got, 6) << std::strerror(errno);
      ASSERT_EQ(::sendto(server.get(), data, 6, 0, reinterpret_cast<sockaddr*>(&from), size), 6);
    }
    for (int i : {0, 1}) EXPECT_EQ(hear(clients[i], 6), format_text("from {}", i));
  }
}

TEST_P(ForwardFamilyTest, DatagramsAsLargeAsTheMtuAllows) {
  for (const int mtu : {1280, 1500, 9000}) {
    SCOPED_TRACE(mtu);
    KernelGuest guest(std::string(GetParam().config) + ",mtu=" + std::to_string(mtu), {}, mtu);
    const Fd server = serve(guest, SOCK_DGRAM);
    const Fd host = client(SOCK_DGRAM);
    const size_t most = static_cast<size_t>(mtu) - (ip(GetParam().host).v6 ? 48 : 28);
    for (const size_t bytes : {most, size_t{1}}) {
      const std::string sent = much(bytes);
      say(host, sent);
      std::string got(most + 1, '\0');
      sockaddr_storage from{};
      socklen_t size = sizeof(from);
      const ssize_t heard = ::recvfrom(server.get(), got.data(), got.size(), 0,
                                       reinterpret_cast<sockaddr*>(&from), &size);
      ASSERT_EQ(heard, static_cast<ssize_t>(bytes)) << std::strerror(errno);
      got.resize(bytes);
      EXPECT_TRUE(got == sent);
      ASSERT_EQ(
          ::sendto(server.get(), sent.data(), bytes, 0, reinterpret_cast<sockaddr*>(&from), size),
          heard);
      EXPECT_TRUE(hear(host, bytes) == sent);
    }
  }
}

TEST_P(ForwardFamilyTest, ADatagramThatNobodyTakesIsNoHarm) {
  KernelGuest guest(GetParam().config);
  const Fd host = client(SOCK_DGRAM);
  for (int i = 0; i < 5; ++i) say(host, "lost");
  std::this_thread::sleep_for(milliseconds(100));
  const Fd server = serve(guest, SOCK_DGRAM);
  say(host, "found");
  std::string heard;
  while ((heard = hear(server, 5)) == "lost") {
  }
  EXPECT_EQ(heard, "found");
}

TEST_P(ForwardFamilyTest, TheEndOfTheGuestIsTheEndOfAll) {
  KernelGuest guest(GetParam().config);
  const Fd server = serve(guest);
  const Fd host = client();
  const Fd accepted = accept_at(server);
  guest.end();
  EXPECT_THAT(end_of(host), AnyOf(0, ECONNRESET));
  EXPECT_EQ(refusal_of(GetParam().host, kHostPort), ECONNREFUSED);
  EXPECT_THAT(listening_sockets(), IsEmpty());
  KernelGuest next(GetParam().config);  // on the same ports, at once
  EXPECT_EQ(listening_sockets().size(), 2U);
}

TEST_F(ForwardTest, WithoutAnAddressOnlyTheLoopbackIsBound) {
  KernelGuest guest("forward=[tcp:8080-:80]");
  Fd server;
  guest.inside([&] { server = serve_at(SOCK_STREAM, "0.0.0.0", 80); });
  EXPECT_TRUE(reach(SOCK_STREAM, "127.0.0.1", 8080));
  for (const char* other : {"192.0.2.1", "127.0.0.2", "::1", "2001:db8::1"}) {
    EXPECT_EQ(refusal_of(other, 8080), ECONNREFUSED) << other;
  }
}

TEST_F(ForwardTest, AllAddressesOfAFamilyWhereTheyAreAskedFor) {
  KernelGuest guest("forward=[tcp:0.0.0.0:8080-:80,\"tcp:[::]:8081-[fd00:2::15]:80\"]");
  Fd server;
  guest.inside([&] { server = serve_at(SOCK_STREAM, "::", 80); });
  for (const char* address : {"127.0.0.1", "192.0.2.1"}) {
    EXPECT_TRUE(reach(SOCK_STREAM, address, 8080)) << address;
    EXPECT_EQ(refusal_of(address, 8081), ECONNREFUSED) << address;
  }
  for (const char* address : {"::1", "2001:db8::1"}) {
    EXPECT_TRUE(reach(SOCK_STREAM, address, 8081)) << address;
    EXPECT_EQ(refusal_of(address, 8080), ECONNREFUSED) << address;
  }
}

TEST_F(ForwardTest, NoOtherPortLeadsToTheGuest) {
  KernelGuest guest("forward=[tcp:8080-:80]");
  std::vector<Fd> servers;
  guest.inside([&] {
    for (uint16_t port : {80, 81, 8080, 8081}) {
      servers.push_back(serve_at(SOCK_STREAM, "0.0.0.0", port));
    }
    servers.push_back(serve_at(SOCK_DGRAM, "0.0.0.0", 8080));
  });
  for (uint16_t port : {80, 81, 8081}) EXPECT_EQ(refusal_of("127.0.0.1", port), ECONNREFUSED);
  const Fd datagrams = reach(SOCK_DGRAM, "127.0.0.1", 8080);
  say(datagrams, "x");
  EXPECT_EQ(end_of(datagrams), ECONNREFUSED) << "of UDP";
  const Fd host = reach(SOCK_STREAM, "127.0.0.1", 8080);
  say(host, "x");
  EXPECT_EQ(hear(accept_at(servers[0]), 1), "x") << "port 80 has it";
}

TEST_F(ForwardTest, AnotherAddressOfTheGuest) {
  KernelGuest guest("forward=[tcp:8080-10.0.2.20:80,tcp:8081-:80]");
  Fd first, second;
  guest.inside([&] {
    first = serve_at(SOCK_STREAM, "10.0.2.15", 80);
    second = serve_at(SOCK_STREAM, "10.0.2.20", 80);
  });
  const Fd to_second = reach(SOCK_STREAM, "127.0.0.1", 8080);
  const Fd to_first = reach(SOCK_STREAM, "127.0.0.1", 8081);
  say(to_first, "1");
  say(to_second, "2");
  EXPECT_EQ(hear(accept_at(first), 1), "1");
  EXPECT_EQ(hear(accept_at(second), 1), "2");
}

TEST_F(ForwardTest, TheGuestsOwnAddressOfIpv6) {
  // What its card's address makes it.
  KernelGuest guest(
      "mac=02:00:00:00:00:01,forward=[\"tcp:[::1]:8080-:80\",\"udp:[::1]:8080-:80\"]");
  Fd server, datagrams;
  const Fd early = reach(SOCK_DGRAM, "::1", 8080);
  say(early, "nobody is there yet");
  const char* const own = "fd00:2::ff:fe00:1";
  guest.add_ipv6(own);
  guest.inside([&] {
    server = serve_at(SOCK_STREAM, own, 80);
    datagrams = serve_at(SOCK_DGRAM, own, 80);
  });
  const Fd host = reach(SOCK_STREAM, "::1", 8080);
  say(host, "x");
  EXPECT_EQ(hear(accept_at(server), 1), "x");
  const Fd peer = reach(SOCK_DGRAM, "::1", 8080);
  say(peer, "y");
  EXPECT_THAT(hear(datagrams, 1), AnyOf("y", "n"));
}

TEST_F(ForwardTest, APortThatAnotherVmHasIsAnError) {
  for (const char* protocol : {"tcp", "udp"}) {
    const KernelGuest guest(format_text("forward=[{}:8080-:80]", protocol));
    auto loop = *EventLoop::create();
    const std::string second = format_text("forward=[{}:8081-:80,{}:8080-:80]", protocol, protocol);
    auto port = UserNetPort::create(*loop, *UserNetConfig::parse(*KeyValues::parse(second)));
    ASSERT_FALSE(port.has_value());
    EXPECT_EQ(port.error().what(),
              format_text("forward={}:127.0.0.1:8080-:80: listening on 127.0.0.1:8080: Address "
                          "already in use; give it another port of the host",
                          protocol));
    EXPECT_EQ(listening_sockets().size(), 1U) << "that of the first";
  }
}

TEST_F(ForwardTest, WhatIsAboveTheBoundWaitsForItsTurn) {
  KernelGuest guest("forward=[tcp:8080-:80]", {.tcp = 2, .udp = 2});
  Fd server;
  guest.inside([&] { server = serve_at(SOCK_STREAM, "0.0.0.0", 80); });
  std::vector<Fd> hosts;
  for (int i = 0; i < 3; ++i) {
    hosts.push_back(reach(SOCK_STREAM, "127.0.0.1", 8080));
    say(hosts.back(), std::to_string(i));
  }
  const Fd first = accept_at(server);
  const Fd second = accept_at(server);
  EXPECT_EQ(hear(first, 1), "0");
  EXPECT_EQ(hear(second, 1), "1");
  EXPECT_EQ(guest.tcp(), 2U);
  reset(std::move(hosts[0]));
  EXPECT_EQ(hear(accept_at(server), 1), "2");
}

TEST_F(ForwardTest, NothingElseListensWhateverGoesOn) {
  const auto before = listening_sockets();
  EXPECT_THAT(before, IsEmpty());
  {
    KernelGuest guest("forward=[tcp:8080-:80]");
    Fd server, out;
    guest.inside([&] {
      server = serve_at(SOCK_STREAM, "0.0.0.0", 80);
      out = reach(SOCK_STREAM, "192.0.2.1", 8080);  // a connection of its own, to nobody
    });
    const Fd host = reach(SOCK_STREAM, "127.0.0.1", 8080);
    say(host, "x");
    EXPECT_EQ(hear(accept_at(server), 1), "x");
    EXPECT_THAT(listening_sockets(), ElementsAre("tcp 0100007F:1F90"));
  }
  EXPECT_EQ(listening_sockets(), before);
}

}  // namespace
}  // namespace crosvm
