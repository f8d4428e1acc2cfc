#include "devices/net/user/rig/test_network.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/ipv6.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <utility>

namespace crosvm {
namespace {

void write_file(const char* path, const std::string& text) { std::ofstream(path) << text; }

std::string set_up_interface() {
  const Fd four(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const Fd six(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!four || !six) return "no sockets";
  ifreq loopback{};
  std::strcpy(loopback.ifr_name, "lo");
  loopback.ifr_flags = IFF_UP;
  if (::ioctl(four.get(), SIOCSIFFLAGS, &loopback) != 0) return "the loopback stays down";
  ifreq more{};
  std::strcpy(more.ifr_name, "lo:1");
  const SocketAddress address(ip("192.0.2.1"), 0);
  std::memcpy(&more.ifr_addr, address.get(), sizeof(sockaddr_in));
  if (::ioctl(four.get(), SIOCSIFADDR, &more) != 0) return "no second address";
  in6_ifreq more6{};
  more6.ifr6_prefixlen = 128;
  more6.ifr6_ifindex = static_cast<int>(::if_nametoindex("lo"));
  std::memcpy(&more6.ifr6_addr, ip("2001:db8::1").bytes.data(), 16);
  if (::ioctl(six.get(), SIOCSIFADDR, &more6) != 0) return "no second address of IPv6";
  return {};
}

std::string set_up_names() {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return "no own mounts";
  char path[] = "/tmp/crosvm-names-XXXXXX";
  const Fd file(::mkstemp(path));
  write_file(path, "search example.org\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n");
  const bool mounted = ::mount(path, "/etc/resolv.conf", nullptr, MS_BIND, nullptr) == 0;
  ::unlink(path);
  return mounted ? "" : "no own /etc/resolv.conf";
}

std::string enter() {
  const bool root = ::geteuid() == 0;
  const std::string uid = std::to_string(::geteuid());
  const std::string gid = std::to_string(::getegid());
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS | (root ? 0 : CLONE_NEWUSER)) != 0) {
    return std::string("no namespaces: ") + std::strerror(errno);
  }
  if (!root) {
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/uid_map", "0 " + uid + " 1");
    write_file("/proc/self/gid_map", "0 " + gid + " 1");
  }
  write_file("/proc/sys/net/ipv4/ping_group_range", "0 0");
  std::string failed = set_up_interface();
  return failed.empty() ? set_up_names() : failed;
}

}  // namespace

SocketAddress::SocketAddress(const IpAddress& address, uint16_t port) {
  if (address.v6) {
    auto* six = reinterpret_cast<sockaddr_in6*>(&storage);
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    std::memcpy(&six->sin6_addr, address.bytes.data(), 16);
    size = sizeof(*six);
  } else {
    auto* four = reinterpret_cast<sockaddr_in*>(&storage);
    four->sin_family = AF_INET;
    four->sin_port = htons(port);
    std::memcpy(&four->sin_addr, address.bytes.data(), 4);
    size = sizeof(*four);
  }
}

std::string enter_test_network() {
  static const std::string failed = enter();
  return failed;
}

Fd bound_socket(int type, const IpAddress& address, uint16_t port) {
  Fd socket(::socket(address.v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const SocketAddress at(address, port);
  EXPECT_EQ(::bind(socket.get(), at.get(), at.size), 0) << std::strerror(errno);
  if (type == SOCK_STREAM) {
    EXPECT_EQ(::listen(socket.get(), 16), 0);
  }
  return socket;
}

Fd connected_socket(int type, const IpAddress& address, uint16_t port) {
  Fd socket(::socket(address.v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const SocketAddress at(address, port);
  const int done = ::connect(socket.get(), at.get(), at.size);
  EXPECT_TRUE(done == 0 || errno == EINPROGRESS) << std::strerror(errno);
  return socket;
}

uint16_t port_of(const Fd& socket) {
  sockaddr_in6 at{};
  socklen_t size = sizeof(at);
  EXPECT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&at), &size), 0);
  return ntohs(at.sin6_port);  // at the same place in both families
}

TestGuest::TestGuest(std::string_view config, FlowLedger::Limits limits)
    : loop_(*EventLoop::create()), memory_([] {
        const RamRange ram{GuestAddress(0), 1 << 20};
        return *GuestMemory::create(std::span(&ram, 1), {});
      }()) {
  auto parsed = UserNetConfig::parse(*KeyValues::parse(config));
  EXPECT_TRUE(parsed.has_value()) << parsed.error().what();
  auto port = UserNetPort::create(*loop_, *parsed, limits);
  EXPECT_TRUE(port.has_value()) << port.error().what();
  port_ = *std::move(port);
  port_->begin({.receivable =
                    [this] {
                      const ChainBuffers into = room(kNetHeaderBytes + kMostPacketBytes);
                      const auto got = port_->receive(into);
                      if (!got) return;
                      Bytes frame(*got - kNetHeaderBytes);
                      EXPECT_TRUE(into.read_bytes(kNetHeaderBytes,
                                                  std::as_writable_bytes(std::span(frame))));
                      frames_.push_back(std::move(frame));
                    },
                .sendable = [] {},
                .link_changed = [](bool) {}});
  port_->listen(true);
}

TestGuest::~TestGuest() { port_.reset(); }

ChainBuffers TestGuest::room(size_t bytes) {
  slices_ = {*memory_.slice(GuestAddress(0x1001), bytes / 2),
             *memory_.slice(GuestAddress(0x40003), bytes - bytes / 2)};
  return ChainBuffers(slices_);
}

void TestGuest::send(const Bytes& frame) {
  const ChainBuffers packet = room(frame.size());
  EXPECT_TRUE(packet.write_bytes(0, std::as_bytes(std::span(frame))));
  EXPECT_EQ(port_->send({}, packet), NetPort::Sent::kDone);
}

void TestGuest::announce() {
  send(arp_request(ip("10.0.2.15"), ip("10.0.2.2")));
  send(neighbour_advertisement(ip("fe80::1:2:3"), ip("ff02::1")));
  send(neighbour_advertisement(ip("fd00:2::15"), ip("ff02::1")));
  idle(std::chrono::milliseconds(1));
  frames_.clear();
}

size_t TestGuest::idle(std::chrono::milliseconds time) {
  const auto end = EventLoop::Clock::now() + time;
  size_t times = 0;
  for (auto now = end - time; now < end || times == 0; now = EventLoop::Clock::now(), ++times) {
    const auto rest = std::max(end - now, std::chrono::nanoseconds(0));
    EXPECT_TRUE(
        loop_->run_once(std::min<EventLoop::Clock::duration>(rest, std::chrono::milliseconds(20))));
  }
  return times;
}

std::optional<TestGuest::Received> TestGuest::wait(const std::function<bool(const IpFrame&)>& fits,
                                                   std::chrono::milliseconds patience) {
  const auto end = EventLoop::Clock::now() + patience;
  while (EventLoop::Clock::now() < end) {
    while (!frames_.empty()) {
      Bytes frame = std::move(frames_.front());
      frames_.erase(frames_.begin());
      const GuestFrame read = read_guest_frame(frame);
      const auto* ip = std::get_if<IpFrame>(&read);
      if (ip && fits(*ip)) return Received{*ip, std::move(frame)};
    }
    EXPECT_TRUE(loop_->run_once(std::chrono::milliseconds(10)));
  }
  return std::nullopt;
}

std::vector<Bytes> TestGuest::take_all() { return std::exchange(frames_, {}); }

Bytes host_receives(TestGuest& guest, const Fd& socket, sockaddr_storage* from) {
  Bytes data(2000);
  for (int tries = 0; tries < 1000; ++tries) {
    socklen_t size = sizeof(*from);
    const ssize_t got = ::recvfrom(socket.get(), data.data(), data.size(), 0,
                                   reinterpret_cast<sockaddr*>(from), from ? &size : nullptr);
    if (got >= 0) {
      data.resize(static_cast<size_t>(got));
      return data;
    }
    guest.idle(std::chrono::milliseconds(5));
  }
  ADD_FAILURE() << "nothing came";
  return {};
}
Fd host_accepts(TestGuest& guest, const Fd& listener) {
  for (int tries = 0; tries < 1000; ++tries) {
    Fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (accepted) return accepted;
    guest.idle(std::chrono::milliseconds(5));
  }
  return {};
}
bool is_prohibited(const std::optional<TestGuest::Received>& answer) {
  if (!answer) return false;
  return answer->ip.source.v6 ? answer->ip.icmp_type == 1 && answer->ip.icmp_code == 1
                              : answer->ip.icmp_type == 3 && answer->ip.icmp_code == 13;
}

}  // namespace crosvm
