// A hostile peer of a VhostUserChannel: any bytes in any pieces, some with descriptors.

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "hostile_device.h"
#include "message_count.h"
#include "vhost/vhost_user_channel.h"

namespace crosvm {
namespace {

/// Sends `bytes` with so many descriptors.
bool send_piece(const Fd& to, std::span<const std::byte> bytes, size_t fds) {
  static const Fd sent = std::move(make_eventfd().value());
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 16)> control{};
  iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (fds > 0) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds);
    cmsghdr* const part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * fds);
    for (size_t i = 0; i < fds; ++i) {
      const int raw = sent.get();
      std::memcpy(CMSG_DATA(part) + i * sizeof(int), &raw, sizeof(int));
    }
  }
  return ::sendmsg(to.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(bytes.size());
}

void play(FuzzInput& input) {
  std::array<int, 2> pair{};
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
  Fd peer(pair[0]);
  VhostUserChannel channel{Fd(pair[1])};
  while (!input.empty()) {
    count_message();
    const uint8_t what = input.byte();
    std::vector<std::byte> bytes(1 + what % 64);
    input.fill(bytes);
    // Mostly headers that pass, or nothing behind them is ever reached.
    if (what & 0x40) {
      VhostUserHeader header{.request = what, .flags = kVhostUserVersion, .size = what & 15u};
      bytes.resize(sizeof(header));
      std::memcpy(bytes.data(), &header, sizeof(header));
    }
    const size_t fds = (what & 0x80) ? input.byte() % 12 : 0;
    if (!send_piece(peer, bytes, fds)) return;
    for (;;) {
      auto message = channel.receive();
      if (!message) return;
      if (!*message) break;
      CHECK((*message)->payload.size() <= kVhostUserMaxPayload);
      CHECK((*message)->fds.size() <= kVhostUserMaxFds);
    }
  }
  peer = {};
  CHECK(!channel.receive());
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  crosvm::FuzzInput input({data, size});
  crosvm::play(input);
  return 0;
}
