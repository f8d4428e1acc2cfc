#include "own_network.h"

#include <arpa/inet.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace crosvm::test {
namespace {

using namespace std::chrono_literals;

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

sockaddr_in loopback(uint16_t port) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return at;
}

}  // namespace

EchoServers::EchoServers(uint16_t port)
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

EchoServers::~EchoServers() {
  ::shutdown(listener_.get(), SHUT_RDWR);
  ::shutdown(datagrams_.get(), SHUT_RDWR);
  streams_.join();
  packets_.join();
}

void EchoServers::serve_streams() {
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

void EchoServers::serve_datagrams() {
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

NameServer::NameServer() : socket_(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  const sockaddr_in6 at = any_address(53);
  EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)), 0);
  thread_ = std::thread([this] { serve(); });
}

NameServer::~NameServer() {
  ::shutdown(socket_.get(), SHUT_RDWR);
  thread_.join();
}

void NameServer::serve() {
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

bool listens_at(const std::string& path) {
  constexpr std::string_view kAccepts = " 00010000 ";  // __SO_ACCEPTCON
  std::ifstream lines("/proc/thread-self/net/unix");
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with(" " + path) && line.find(kAccepts) != std::string::npos) return true;
  }
  return false;
}

size_t processes_of(std::string_view program) {
  size_t count = 0;
  for (const auto& each : std::filesystem::directory_iterator("/proc")) {
    std::error_code none;
    const auto executed = std::filesystem::read_symlink(each.path() / "exe", none);
    count += executed.filename() == program ? 1 : 0;
  }
  return count;
}

bool comes_about(const std::function<bool()>& fact) {
  for (int i = 0; i < 6000 && !fact(); ++i) std::this_thread::sleep_for(10ms);
  return fact();
}

std::string answer_of(uint16_t port, int type) {
  const Fd client(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  const timeval patience{.tv_sec = 60, .tv_usec = 0};
  ::setsockopt(client.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  const sockaddr_in to = loopback(port);
  if (::connect(client.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0) {
    return "not connected";
  }
  std::string answer(5, '-');
  if (::send(client.get(), "hello", 5, 0) != 5) return "not sent";
  const ssize_t got = ::recv(client.get(), answer.data(), answer.size(), MSG_WAITALL);
  answer.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return answer;
}

void OwnNetworkTest::in_own_network(const std::function<void()>& test) {
  bool made = false;
  std::thread([&] {
    made = enter_own_network(scratch_);
    if (made) test();
  }).join();
  ASSERT_TRUE(made) << "the test host is root, and has iproute2";
}

GuestBoot OwnNetworkTest::boot(const std::string& net) { return {.extra = {"--net", net}}; }

std::string OwnNetworkTest::in_bash(AgentGuest& guest, const std::string& script) {
  return guest.output_of("bash -c '" + script + "'");
}

void OwnNetworkTest::talk_to(AgentGuest& guest, const std::string& address) {
  const std::string to = "/" + address + "/7000";
  EXPECT_EQ(in_bash(guest, "exec 3<>/dev/tcp" + to + "; echo hello >&3; head -n 1 <&3"), "hello\n")
      << address;
  EXPECT_EQ(in_bash(guest, "exec 3<>/dev/udp" + to + "; echo hello >&3; timeout 20 head -c 6 <&3"),
            "hello\n")
      << address;
}

void OwnNetworkTest::wait_until(AgentGuest& guest, const std::string& condition) {
  guest.output_of("for i in $(seq 600); do " + condition + " && exit 0; sleep 0.1; done; exit 1");
}

}  // namespace crosvm::test
