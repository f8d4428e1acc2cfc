#include "bench/net_wire.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>

#include <algorithm>

#include "bench/net_lane.h"
#include "devices/net/net_abi.h"
#include "devices/net/tap.h"

namespace crosvm {
namespace {

constexpr int kRoom = 64 << 20;  // for frames on their way

Fd packet_socket(const std::string& tap, int protocol) {
  Fd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  CHECK(socket.get() >= 0);
  sockaddr_ll at{};
  at.sll_family = AF_PACKET;
  at.sll_protocol = htons(static_cast<uint16_t>(protocol));
  at.sll_ifindex = static_cast<int>(::if_nametoindex(tap.c_str()));
  CHECK(::bind(socket.get(), reinterpret_cast<sockaddr*>(&at), sizeof(at)) == 0);
  return socket;
}

}  // namespace

NetWire::NetWire(const std::string& tap) : socket_(packet_socket(tap, 0)) {
  // No queue of the host's before the tap's own.
  const int on = 1;
  CHECK(::setsockopt(socket_.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) == 0);
  CHECK(::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kRoom, sizeof(kRoom)) == 0 ||
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDBUF, &kRoom, sizeof(kRoom)) == 0);
}

void NetWire::set_frames(size_t bytes) {
  frames_.clear();
  pieces_.clear();
  messages_.clear();
  for (uint16_t flow = 0; flow < kFlows; ++flow) frames_.push_back(net_frame(bytes, flow));
  for (auto& frame : frames_) pieces_.push_back({frame.data(), frame.size()});
  for (iovec& piece : pieces_) {
    mmsghdr message{};
    message.msg_hdr.msg_iov = &piece;
    message.msg_hdr.msg_iovlen = 1;
    messages_.push_back(message);
  }
}

size_t NetWire::send(size_t count) {
  size_t sent = 0;
  while (sent < count) {
    const size_t now = std::min(count - sent, messages_.size() - next_);
    const int taken =
        ::sendmmsg(socket_.get(), &messages_[next_], static_cast<unsigned>(now), MSG_DONTWAIT);
    if (taken <= 0) break;
    sent += static_cast<size_t>(taken);
    next_ = (next_ + static_cast<size_t>(taken)) % messages_.size();
  }
  return sent;
}

NetListener::NetListener(const std::string& tap) : socket_(packet_socket(tap, ETH_P_IP)) {
  const int on = 1;
  CHECK(::setsockopt(socket_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) == 0);
}

bool NetListener::next(int timeout_ms) const {
  pollfd waiting{.fd = socket_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&waiting, 1, timeout_ms) <= 0) return false;
  std::byte start[64];
  return ::recv(socket_.get(), start, sizeof(start), MSG_TRUNC) > 0;
}

std::vector<Fd> open_bare_tap(const std::string& tap, size_t queues) {
  auto opened = attach_tap(tap, static_cast<uint16_t>(queues));
  CHECK(opened.has_value());
  return std::move(opened->queues);
}

}  // namespace crosvm
