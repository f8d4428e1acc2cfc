#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"

namespace crosvm {

/// A network namespace of the test's own, as long as this lives, for the thread that made it.
class TestNamespace {
 public:
  TestNamespace() : former_(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) {
    if (::unshare(CLONE_NEWNET) != 0) missing_ = std::string("unshare: ") + std::strerror(errno);
    if (missing_.empty() && ::access("/dev/net/tun", R_OK | W_OK) != 0) {
      missing_ = std::string("/dev/net/tun: ") + std::strerror(errno);
    }
  }
  ~TestNamespace() { (void)::setns(former_.get(), CLONE_NEWNET); }
  TestNamespace(const TestNamespace&) = delete;
  TestNamespace& operator=(const TestNamespace&) = delete;

  /// Why tests cannot have taps here; empty if they can.
  const std::string& missing() const { return missing_; }

 private:
  Fd former_;
  std::string missing_;
};

/// An ioctl about an interface.
inline bool interface_ioctl(const std::string& name, unsigned long code, ifreq& request) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::memset(request.ifr_name, 0, sizeof(request.ifr_name));
  std::memcpy(request.ifr_name, name.data(), std::min<size_t>(name.size(), IFNAMSIZ - 1));
  return ::ioctl(socket.get(), code, &request) == 0;
}

inline bool interface_is_up(const std::string& name) {
  ifreq request{};
  return interface_ioctl(name, SIOCGIFFLAGS, request) && (request.ifr_flags & IFF_UP) != 0;
}

inline bool set_interface_up(const std::string& name, bool up) {
  ifreq request{};
  if (!interface_ioctl(name, SIOCGIFFLAGS, request)) return false;
  request.ifr_flags =
      static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  return interface_ioctl(name, SIOCSIFFLAGS, request);
}

inline bool delete_interface(const std::string& name) {
  struct {
    nlmsghdr header{};
    ifinfomsg info{};
  } request;
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = RTM_DELLINK;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  request.info.ifi_index = static_cast<int>(::if_nametoindex(name.c_str()));
  const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (::send(socket.get(), &request, sizeof(request), 0) < 0) return false;
  std::vector<char> answer(4096);
  (void)::recv(socket.get(), answer.data(), answer.size(), 0);
  return ::if_nametoindex(name.c_str()) == 0;
}

/// Sees what arrives at an interface with the type of local experiments, and sends such.
class PacketTap {
 public:
  static constexpr uint16_t kType = 0x88b5;
  explicit PacketTap(const std::string& interface)
      : socket_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(kType))) {
    sockaddr_ll at{};
    at.sll_family = AF_PACKET;
    at.sll_protocol = htons(kType);
    at.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
  }
  static std::vector<std::byte> packet(uint8_t number) {
    std::vector<std::byte> packet(60, std::byte{number});
    std::fill(packet.begin(), packet.begin() + 6, std::byte{0xff});  // to all
    packet[6] = std::byte{2};
    packet[12] = std::byte{kType >> 8};
    packet[13] = std::byte{kType & 0xff};
    return packet;
  }
  void send(std::span<const std::byte> packet) const {
    EXPECT_EQ(::send(socket_.get(), packet.data(), packet.size(), 0),
              static_cast<ssize_t>(packet.size()));
  }
  /// The next that was seen, of either direction; nothing in time.
  std::vector<std::byte> next(int timeout_ms = 10'000) const {
    pollfd waiting{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, timeout_ms) <= 0) return {};
    std::vector<std::byte> packet(2048);
    const ssize_t got = ::recv(socket_.get(), packet.data(), packet.size(), 0);
    packet.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
    return packet;
  }

 private:
  Fd socket_;
};

}  // namespace crosvm
