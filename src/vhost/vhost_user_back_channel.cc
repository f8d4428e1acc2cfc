#include "vhost/vhost_user_back_channel.h"

#include <sys/socket.h>

#include <utility>

namespace crosvm {

Result<std::unique_ptr<VhostUserBackChannel>> VhostUserBackChannel::create(EventLoop& loop,
                                                                           Fd socket) {
  int type = 0;
  socklen_t size = sizeof(type);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) {
    return fail(Error::invalid("the descriptor for back-end requests is no stream socket"));
  }
  std::unique_ptr<VhostUserBackChannel> channel(new VhostUserBackChannel(loop, std::move(socket)));
  VhostUserBackChannel* self = channel.get();
  channel->watch_ = TRY(with_context(loop.watch(self->channel_.socket(), EPOLLIN,
                                                [self](uint32_t events) { self->ready(events); }),
                                     "the socket for back-end requests"));
  return channel;
}

VhostUserBackChannel::~VhostUserBackChannel() { close(); }

void VhostUserBackChannel::close() { loop_.unwatch(std::exchange(watch_, 0)); }

void VhostUserBackChannel::ready(uint32_t events) {
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
    // Answers that nobody asked for.
    const auto message = channel_.receive();
    if (!message) return close();
  }
  if (!send_due()) close();
}

Result<void> VhostUserBackChannel::send_due() {
  TRY(channel_.flush());
  if (change_due_ && !channel_.wants_write()) {
    change_due_ = false;
    TRY(channel_.send(vhost_user_message(VHOST_USER_BACKEND_CONFIG_CHANGE_MSG)));
  }
  return loop_.set_events(watch_, channel_.wants_write() ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

Result<void> VhostUserBackChannel::tell_config_change() {
  if (watch_ == 0) return {};
  change_due_ = true;
  auto sent = send_due();
  if (!sent) close();
  return sent;
}

}  // namespace crosvm
