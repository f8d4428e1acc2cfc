// The networks without privilege, --net user and --net passt, in a stock Debian guest, against
// servers in a network that this test makes: the VM that it starts is in it, and nothing else.

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "agent_guest.h"
#include "base/fd.h"
#include "other_program.h"
#include "vm_process.h"

namespace crosvm::test {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

/// This thread's, so the other tests of the program keep theirs.
bool enter_own_network(const ScratchDirectory& scratch) {
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_FS) != 0) return false;
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  const std::string names = scratch.path() + "/resolv.conf";
  std::ofstream(names) << "nameserver 192.0.2.1\n";
  std::ofstream("/proc/sys/net/ipv4/ping_group_range") << "0 0";
  return ::mount(names.c_str(), "/etc/resolv.conf", nullptr, MS_BIND, nullptr) == 0 &&
         std::system(
             "ip link set lo up && ip address add 192.0.2.1/32 dev lo && "
             "ip address add 192.0.2.2/32 dev lo && ip address add 2001:db8::1/128 dev lo") == 0;
}

sockaddr_in6 any_address(uint16_t port) {
  sockaddr_in6 at{};
  at.sin6_family = AF_INET6;
  at.sin6_port = htons(port);
  return at;
}

/// Says on each connection what it is told, on each datagram likewise; both families, all
/// addresses.
class EchoServers {
 public:
  explicit EchoServers(uint16_t port)
      : listener_(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)),
        datagrams_(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in6 at = any_address(port);
    for (const Fd* socket : {&listener_, &datagrams_}) {
      EXPECT_EQ(::bind(socket->get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)), 0);
    }
    EXPECT_EQ(::listen(listener_.get(), 16), 0);
    streams_ = std::thread([this] { serve_streams(); });
    packets_ = std::thread([this] { serve_datagrams(); });
  }
  ~EchoServers() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    ::shutdown(datagrams_.get(), SHUT_RDWR);
    streams_.join();
    packets_.join();
  }
  int connections() const { return connections_; }

 private:
  void serve_streams() {
    for (;;) {
      const Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client) return;
      ++connections_;
      char data[65536];
      for (ssize_t got = 0; (got = ::recv(client.get(), data, sizeof(data), 0)) > 0;) {
        if (::send(client.get(), data, static_cast<size_t>(got), MSG_NOSIGNAL) != got) break;
      }
    }
  }
  void serve_datagrams() {
    for (;;) {
      char data[65536];
      sockaddr_in6 from{};
      socklen_t size = sizeof(from);
      const ssize_t got = ::recvfrom(datagrams_.get(), data, sizeof(data), 0,
                                     reinterpret_cast<sockaddr*>(&from), &size);
      if (got <= 0) return;
      ::sendto(datagrams_.get(), data, static_cast<size_t>(got), 0,
               reinterpret_cast<sockaddr*>(&from), size);
    }
  }

  Fd listener_;
  Fd datagrams_;
  std::atomic<int> connections_ = 0;
  std::thread streams_;
  std::thread packets_;
};

/// Answers every question for an address with 192.0.2.1.
class NameServer {
 public:
  NameServer() : socket_(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in6 at = any_address(53);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~NameServer() {
    ::shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
  }

 private:
  void serve() {
    for (;;) {
      std::string packet(512, '\0');
      sockaddr_in6 from{};
      socklen_t size = sizeof(from);
      const ssize_t got = ::recvfrom(socket_.get(), packet.data(), packet.size(), 0,
                                     reinterpret_cast<sockaddr*>(&from), &size);
      if (got < 17) return;
      packet.resize(static_cast<size_t>(got));
      const size_t end = packet.find('\0', 12);  // of the name
      if (end == std::string::npos || end + 5 > packet.size()) continue;
      const bool wants_v4 = packet[end + 2] == 1;
      packet.resize(end + 5);  // without what else was asked
      packet[2] = '\x81';
      packet[3] = '\x80';
      packet[7] = wants_v4 ? 1 : 0;
      packet[9] = packet[11] = 0;
      if (wants_v4) packet += std::string("\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1", 16);
      ::sendto(socket_.get(), packet.data(), packet.size(), 0, reinterpret_cast<sockaddr*>(&from),
               size);
    }
  }

  Fd socket_;
  std::thread thread_;
};

std::string listening() {
  std::ostringstream all;
  for (const char* table : {"tcp", "tcp6", "udp", "udp6"}) {
    std::ifstream lines(std::string("/proc/thread-self/net/") + table);
    all << lines.rdbuf();
  }
  return all.str();
}

size_t listeners() {
  const std::string all = listening();
  size_t count = 0;
  for (size_t at = 0; (at = all.find(" 0A ", at)) != std::string::npos; ++at) ++count;
  return count;
}

/// Processes that run the program of that name, wherever it is.
size_t processes_of(std::string_view program) {
  size_t count = 0;
  for (const auto& each : std::filesystem::directory_iterator("/proc")) {
    std::error_code none;
    const auto executed = std::filesystem::read_symlink(each.path() / "exe", none);
    count += executed.filename() == program ? 1 : 0;
  }
  return count;
}

/// Waits for what comes about soon.
bool comes_about(const std::function<bool()>& fact) {
  for (int i = 0; i < 6000 && !fact(); ++i) std::this_thread::sleep_for(10ms);
  return fact();
}

/// passt, as Debian has it, in the network of the thread that starts it.
class Passt {
 public:
  explicit Passt(const std::string& socket)
      : program_({"passt", "--foreground", "--runas", "0", "--socket", socket}) {
    struct stat facts;
    EXPECT_TRUE(comes_about([&] { return ::stat(socket.c_str(), &facts) == 0; })) << socket;
  }

 private:
  OtherProgram program_;
};

class UserNetVmTest : public testing::Test {
 protected:
  /// Runs the test on a thread whose network is its own.
  void in_own_network(const std::function<void()>& test) {
    bool made = false;
    std::thread([&] {
      made = enter_own_network(scratch_);
      if (made) test();
    }).join();
    ASSERT_TRUE(made) << "the test host is root, and has iproute2";
  }
  static GuestBoot boot(const std::string& net, std::vector<std::string> more = {}) {
    std::vector<std::string> extra = {"--net", net};
    extra.insert(extra.end(), more.begin(), more.end());
    return {.extra = extra};
  }
  /// What it says in bash, which opens connections by itself; without single quotes.
  static std::string in_bash(AgentGuest& guest, const std::string& script) {
    return guest.output_of("bash -c '" + script + "'");
  }
  static void wait_for_address(AgentGuest& guest) {
    guest.output_of(
        "for i in $(seq 600); do ip -4 address show dev eth0 | grep -q 10.0.2.15 && "
        "ip -6 address show dev eth0 scope global | grep -q fd00:2: && "
        "! ip -6 address show dev eth0 | grep -q tentative && exit 0; sleep 0.1; done; exit 1");
  }

  ScratchDirectory scratch_;
};

TEST_F(UserNetVmTest, NamesConnectionsDatagramsAndPingsInBothFamilies) {
  in_own_network([] {
    const EchoServers servers(7000);
    const NameServer names;
    AgentGuest guest(boot("user"));
    wait_for_address(guest);
    EXPECT_THAT(guest.output_of("cat /etc/resolv.conf"), HasSubstr("nameserver 10.0.2.3"));
    EXPECT_THAT(guest.output_of("getent hosts server.example"), HasSubstr("192.0.2.1"));
    for (const char* address : {"192.0.2.1", "2001:db8::1", "server.example"}) {
      const std::string to = std::string("/") + address + "/7000";
      EXPECT_EQ(in_bash(guest, "exec 3<>/dev/tcp" + to + "; echo hello >&3; head -n 1 <&3"),
                "hello\n")
          << address;
      EXPECT_EQ(
          in_bash(guest, "exec 3<>/dev/udp" + to + "; echo hello >&3; timeout 20 head -c 6 <&3"),
          "hello\n")
          << address;
    }
    // A file there and back.
    in_bash(guest,
            "head -c 20000000 /dev/urandom > /tmp/sent; exec 3<>/dev/tcp/192.0.2.1/7000; "
            "(cat /tmp/sent >&3 &); "
            "[ \"$(head -c 20000000 <&3 | sha256sum)\" = \"$(sha256sum < /tmp/sent)\" ]");
    EXPECT_THAT(guest.output_of("busybox ping -c 2 -W 10 192.0.2.1"),
                HasSubstr("2 packets received"));
    EXPECT_THAT(guest.output_of("busybox ping -6 -c 2 -W 10 2001:db8::1"),
                HasSubstr("2 packets received"));
    EXPECT_EQ(guest.power_off(), 0);
  });
}

TEST_F(UserNetVmTest, LoopbackMetadataAndDeniedRangesAreRefused) {
  in_own_network([] {
    const EchoServers servers(7000);
    AgentGuest guest(boot("user,deny=[192.0.2.2,\"2001:db8::/32\"]"));
    wait_for_address(guest);
    for (const char* address :
         {"10.0.2.2", "169.254.169.254", "192.0.2.2", "fd00:2::2", "2001:db8::1"}) {
      const AgentResult tried =
          guest.shell(std::string("timeout 30 bash -c 'exec 3<>/dev/tcp/") + address + "/7000'");
      EXPECT_EQ(tried.status, 1) << address << ": " << tried.errors;
    }
    EXPECT_EQ(servers.connections(), 0);
    EXPECT_EQ(in_bash(guest, "exec 3<>/dev/tcp/192.0.2.1/7000; echo hello >&3; head -n 1 <&3"),
              "hello\n");
    EXPECT_EQ(guest.power_off(), 0);
  });
}

TEST_F(UserNetVmTest, ForwardsLeadToTheGuestAndNothingElseListens) {
  in_own_network([] {
    AgentGuest guest(boot("user,forward=[tcp:8080-:80]"));
    wait_for_address(guest);
    guest.output_of(
        "socat TCP-LISTEN:80 EXEC:/bin/cat </dev/null >/dev/null 2>&1 & "
        "for i in $(seq 600); do ss -Hltn | grep -q :80 && exit 0; sleep 0.1; done; exit 1");
    EXPECT_THAT(listening(), HasSubstr("0100007F:1F90 00000000:0000 0A"));
    EXPECT_EQ(listeners(), 1U) << listening();
    const Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    ::setsockopt(client.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(8080);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
    ASSERT_EQ(::send(client.get(), "hello", 5, 0), 5);
    char answer[5];
    EXPECT_EQ(::recv(client.get(), answer, sizeof(answer), MSG_WAITALL), 5);
    EXPECT_EQ(std::string(answer, 5), "hello");
    EXPECT_EQ(guest.power_off(), 0);
    EXPECT_EQ(listeners(), 0U) << listening();
  });
}

TEST_F(UserNetVmTest, AKilledVmLeavesNothing) {
  in_own_network([] {
    AgentGuest guest(boot("user,forward=[tcp:8080-:80]"));
    EXPECT_EQ(listeners(), 1U) << listening();
    EXPECT_EQ(processes_of("crosvm-worker-net-user"), 1U);
    guest.vm().signal(SIGKILL);
    EXPECT_EQ(guest.vm().wait_exit(), 128 + SIGKILL);
    EXPECT_TRUE(comes_about([] { return processes_of("crosvm-worker-net-user") == 0; }));
    EXPECT_TRUE(comes_about([] { return listeners() == 0; })) << listening();
  });
}

TEST_F(UserNetVmTest, PasstMayGoAndComeBack) {
  in_own_network([this] {
    // passt gives the guest the address of the interface that leads out.
    ASSERT_EQ(std::system("ip tuntap add mode tap name out && ip link set out up && "
                          "ip address add 198.51.100.2/24 dev out && "
                          "ip route add default via 198.51.100.1 dev out"),
              0);
    const EchoServers servers(7000);
    const std::string socket = scratch_.path() + "/passt";
    auto passt = std::make_unique<Passt>(socket);
    AgentGuest guest(boot("passt,mtu=1400,socket=" + socket));
    guest.output_of(
        "for i in $(seq 600); do ip -4 address show dev eth0 | grep -q 198.51.100.2 && exit 0; "
        "sleep 0.1; done; exit 1");
    EXPECT_EQ(guest.output_of("cat /sys/class/net/eth0/mtu"), "1400\n");
    const std::string talk = "exec 3<>/dev/tcp/192.0.2.1/7000; echo hello >&3; head -n 1 <&3";
    EXPECT_EQ(in_bash(guest, talk), "hello\n");
    EXPECT_EQ(in_bash(guest,
                      "exec 3<>/dev/udp/192.0.2.1/7000; echo hello >&3; "
                      "timeout 20 head -c 6 <&3"),
              "hello\n");
    const auto wait_carrier = [&guest](const char* state) {
      guest.output_of(std::string("for i in $(seq 600); do [ \"$(cat "
                                  "/sys/class/net/eth0/carrier)\" = ") +
                      state + " ] && exit 0; sleep 0.1; done; exit 1");
    };
    passt.reset();
    ::unlink(socket.c_str());
    wait_carrier("0");
    passt = std::make_unique<Passt>(socket);
    wait_carrier("1");
    EXPECT_EQ(in_bash(guest, talk), "hello\n");
    EXPECT_EQ(guest.power_off(), 0);
    EXPECT_THAT(guest.vm().errors(), HasSubstr("; the link is down"));
    EXPECT_THAT(guest.vm().errors(), HasSubstr("connected again; the link is up"));
  });
}

}  // namespace
}  // namespace crosvm::test
