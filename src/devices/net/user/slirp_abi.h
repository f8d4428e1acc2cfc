#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "devices/net/ip_address.h"

namespace crosvm {

// What libslirp and we call by different names.

inline constexpr std::pair<int, short> kPollBits[] = {{SLIRP_POLL_IN, POLLIN},
                                                      {SLIRP_POLL_OUT, POLLOUT},
                                                      {SLIRP_POLL_PRI, POLLPRI},
                                                      {SLIRP_POLL_ERR, POLLERR},
                                                      {SLIRP_POLL_HUP, POLLHUP}};

inline short to_poll(int events) {
  int bits = 0;
  for (auto [theirs, ours] : kPollBits) bits |= (events & theirs) != 0 ? ours : 0;
  return static_cast<short>(bits);
}
inline int from_poll(short events) {
  int bits = 0;
  for (auto [theirs, ours] : kPollBits) bits |= (events & ours) != 0 ? theirs : 0;
  return bits;
}

/// What the library is told of a socket. It reads where it is told of an error, and stops the
/// process when it has no room to read into, which is when it did not ask to read: the write that
/// it asked for then finds the error.
inline int answer(short asked, short found) {
  if ((asked & POLLIN) != 0) return from_poll(found);
  return (found & (POLLOUT | POLLERR | POLLHUP)) != 0 ? SLIRP_POLL_OUT : 0;
}

inline in_addr to_in_addr(const IpAddress& address) {
  in_addr to;
  std::memcpy(&to, address.bytes.data(), sizeof(to));
  return to;
}
inline in6_addr to_in6_addr(const IpAddress& address) {
  in6_addr to;
  std::memcpy(&to, address.bytes.data(), sizeof(to));
  return to;
}

/// For calls of sockets.
struct SlirpAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  SlirpAddress(const IpAddress& address, uint16_t port) {
    if (address.v6) {
      auto* to = reinterpret_cast<sockaddr_in6*>(&storage);
      to->sin6_family = AF_INET6;
      to->sin6_addr = to_in6_addr(address);
      to->sin6_port = htons(port);
      size = sizeof(*to);
    } else {
      auto* to = reinterpret_cast<sockaddr_in*>(&storage);
      to->sin_family = AF_INET;
      to->sin_addr = to_in_addr(address);
      to->sin_port = htons(port);
      size = sizeof(*to);
    }
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

using SlirpAddressOf = int (*)(int fd, sockaddr* address, socklen_t* size);
/// What `of`, getsockname or getpeername, says of `fd`. Nothing: it fails.
inline std::optional<std::pair<IpAddress, uint16_t>> address_of(int fd, SlirpAddressOf of) {
  sockaddr_storage at{};
  socklen_t size = sizeof(at);
  if (of(fd, reinterpret_cast<sockaddr*>(&at), &size) != 0) return std::nullopt;
  if (at.ss_family == AF_INET6) {
    const auto* from = reinterpret_cast<const sockaddr_in6*>(&at);
    return std::pair(IpAddress::from_bytes(true, from->sin6_addr.s6_addr), ntohs(from->sin6_port));
  }
  const auto* from = reinterpret_cast<const sockaddr_in*>(&at);
  return std::pair(IpAddress::from_number(ntohl(from->sin_addr.s_addr)), ntohs(from->sin_port));
}

}  // namespace crosvm
