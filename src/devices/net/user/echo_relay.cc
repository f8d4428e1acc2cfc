#include "devices/net/user/echo_relay.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/log.h"
#include "devices/net/user/own_frames.h"

namespace crosvm {
namespace {

constexpr size_t kIdAt = 4;  // in an echo message
constexpr uint8_t kEchoReply4 = 0;
constexpr uint8_t kEchoReply6 = 129;
constexpr size_t kMostMessage = 65535;
constexpr int kMostAnswersAtOnce = 64;

Fd open_ping_socket(bool v6) {
  return Fd(::socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                     v6 ? int{IPPROTO_ICMPV6} : int{IPPROTO_ICMP}));
}

}  // namespace

bool may_ping() { return static_cast<bool>(open_ping_socket(false)); }

EchoRelay::EchoRelay(EventLoop& loop, ToGuest to_guest)
    : loop_(loop), to_guest_(std::move(to_guest)) {}

EchoRelay::~EchoRelay() {
  while (!pings_.empty()) close(pings_.begin());
  if (timer_ != 0) loop_.cancel(timer_);
}

void EchoRelay::close(std::map<Key, Ping>::iterator at) {
  loop_.unwatch(at->second.watch);
  pings_.erase(at);
}

void EchoRelay::close_silent() {
  const auto now = EventLoop::Clock::now();
  for (auto at = pings_.begin(); at != pings_.end();) {
    const auto here = at++;
    if (now - here->second.used >= kSilence) close(here);
  }
  timer_ = 0;
  if (!pings_.empty()) timer_ = loop_.after(kSilence, [this] { close_silent(); });
}

Result<EchoRelay::Ping*> EchoRelay::ping_for(const Key& key) {
  if (auto found = pings_.find(key); found != pings_.end()) return &found->second;
  Fd socket = open_ping_socket(key.first.v6);
  if (!socket) return fail(Error::from_errno("opening", "a socket for pings"));
  if (pings_.size() >= kMostSockets) {
    close(std::ranges::min_element(pings_, {}, [](const auto& each) { return each.second.used; }));
  }
  const auto watch = TRY(loop_.watch(socket, EPOLLIN, [this, key](uint32_t) { answer(key); }));
  if (timer_ == 0) timer_ = loop_.after(kSilence, [this] { close_silent(); });
  Ping& ping = pings_[key];
  ping.socket = std::move(socket);
  ping.watch = watch;
  return &ping;
}

bool EchoRelay::send(std::span<const uint8_t> frame, const IpFrame& ip) {
  const auto message = frame.subspan(ip.payload_at, ip.end - ip.payload_at);
  auto ping = ping_for({ip.source, load_be16(&message[kIdAt])});
  if (!ping) {
    if (!std::exchange(complained_, true)) {
      const bool denied = ping.error().code() == std::errc::permission_denied;
      log::warn("user network: the guest's pings are not sent: {}{}", ping.error().what(),
                denied
                    ? "; the sysctl net.ipv4.ping_group_range must have the group of crosvm in it"
                    : "");
    }
    return false;
  }
  (*ping)->used = EventLoop::Clock::now();
  (*ping)->ethernet.assign(frame.begin(), frame.begin() + kEthernetHeaderBytes);
  sockaddr_storage to{};
  socklen_t size = sizeof(sockaddr_in);
  if (ip.source.v6) {
    auto* to6 = reinterpret_cast<sockaddr_in6*>(&to);
    to6->sin6_family = AF_INET6;
    std::memcpy(&to6->sin6_addr, ip.destination.bytes.data(), sizeof(to6->sin6_addr));
    size = sizeof(sockaddr_in6);
  } else {
    auto* to4 = reinterpret_cast<sockaddr_in*>(&to);
    to4->sin_family = AF_INET;
    std::memcpy(&to4->sin_addr, ip.destination.bytes.data(), sizeof(to4->sin_addr));
  }
  // The kernel puts identifier and checksum of its own in. A ping that is lost is no failure.
  (void)::sendto((*ping)->socket.get(), message.data(), message.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&to), size);
  return true;
}

void EchoRelay::answer(const Key& key) {
  static thread_local std::array<uint8_t, kMostMessage> buffer;
  Ping& ping = pings_.at(key);
  for (int i = 0; i < kMostAnswersAtOnce; ++i) {
    sockaddr_storage from{};
    socklen_t size = sizeof(from);
    const ssize_t got = ::recvfrom(ping.socket.get(), buffer.data(), buffer.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &size);
    if (got < 0) return;  // also what the network said of a ping that was lost
    if (got < 8 || buffer[0] != (key.first.v6 ? kEchoReply6 : kEchoReply4)) continue;
    IpAddress sender{.v6 = key.first.v6, .bytes = {}};
    if (sender.v6) {
      std::memcpy(sender.bytes.data(), &reinterpret_cast<sockaddr_in6*>(&from)->sin6_addr, 16);
    } else {
      std::memcpy(sender.bytes.data(), &reinterpret_cast<sockaddr_in*>(&from)->sin_addr, 4);
    }
    store_be16(&buffer[2], 0);
    store_be16(&buffer[kIdAt], key.second);
    ping.used = EventLoop::Clock::now();
    to_guest_(icmp_frame_for_guest(ping.ethernet, sender, key.first,
                                   std::span(buffer).first(static_cast<size_t>(got))));
  }
}

}  // namespace crosvm
