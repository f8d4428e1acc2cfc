#include "base/packet_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "base/format.h"

namespace crosvm {
namespace {

/// A packet of no bytes and the end of the stream look alike to recvmsg; only the latter comes with
/// the peer's end shut.
bool peer_has_closed(const Fd& fd) {
  pollfd poll{.fd = fd.get(), .events = POLLRDHUP, .revents = 0};
  return ::poll(&poll, 1, 0) == 1 && (poll.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

ssize_t retry_receive(int fd, msghdr* message, int flags) {
  ssize_t got;
  do {
    got = ::recvmsg(fd, message, flags);
  } while (got < 0 && errno == EINTR);
  return got;
}

/// Room for the control message of `fds` descriptors, in elements that are aligned for it.
size_t control_words(size_t fds) {
  return (CMSG_SPACE(fds * sizeof(int)) + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t);
}

/// Owns every descriptor the message brought.
std::vector<Fd> take_fds(msghdr& message) {
  std::vector<Fd> fds;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    size_t bytes = part->cmsg_len - CMSG_LEN(0);
    for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
      int raw = -1;
      std::memcpy(&raw, CMSG_DATA(part) + at, sizeof(raw));
      fds.emplace_back(raw);
    }
  }
  return fds;
}

}  // namespace

Result<std::optional<Packet>> PacketSocket::receive() {
  msghdr peek{};
  ssize_t size = retry_receive(fd_.get(), &peek, MSG_PEEK | MSG_TRUNC);
  if (size < 0) return fail(Error::from_errno("receiving from", "a packet socket"));
  if (size == 0 && peer_has_closed(fd_)) return std::nullopt;

  Packet packet;
  bool fits = static_cast<size_t>(size) <= limits_.bytes;
  if (fits) packet.text.resize(static_cast<size_t>(size));
  iovec text{.iov_base = packet.text.data(), .iov_len = packet.text.size()};
  std::vector<std::max_align_t> control(control_words(limits_.fds));
  msghdr message{};
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  if (fits) {  // without room for them the kernel drops the descriptors of a packet we refuse
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(limits_.fds * sizeof(int));
  }
  ssize_t got = retry_receive(fd_.get(), &message, MSG_CMSG_CLOEXEC);
  if (got < 0) return fail(Error::from_errno("receiving from", "a packet socket"));
  if (!fits) {
    return fail(Error(
        std::errc::message_size,
        format_text("packet of {} bytes is longer than the {} allowed", size, limits_.bytes)));
  }
  packet.fds = take_fds(message);
  packet.text.resize(static_cast<size_t>(got));
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    return fail(Error(std::errc::bad_message,
                      format_text("packet brings more descriptors than the {} allowed, or "
                                  "than this process may open",
                                  limits_.fds)));
  }
  return packet;
}

Result<void> PacketSocket::send(const Packet& packet) {
  CHECK(packet.fds.size() <= limits_.fds);
  iovec text{.iov_base = const_cast<char*>(packet.text.data()), .iov_len = packet.text.size()};
  std::vector<std::max_align_t> control(control_words(packet.fds.size()));
  msghdr message{};
  message.msg_iov = &text;
  message.msg_iovlen = 1;
  if (!packet.fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(packet.fds.size() * sizeof(int));
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(packet.fds.size() * sizeof(int));
    for (size_t i = 0; i < packet.fds.size(); ++i) {
      int raw = packet.fds[i].get();
      std::memcpy(CMSG_DATA(part) + i * sizeof(int), &raw, sizeof(raw));
    }
  }
  ssize_t put;
  do {
    put = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
  } while (put < 0 && errno == EINTR);
  if (put < 0) return fail(Error::from_errno("sending to", "a packet socket"));
  return {};
}

}  // namespace crosvm
