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

void VhostUserBackChannel::close() {
  loop_.unwatch(std::exchange(watch_, 0));
  for (Waiting& each : std::exchange(waiting_, {})) {
    each.done(fail(Error(std::errc::not_connected, "the channel to the front-end is closed")));
  }
}

Result<void> VhostUserBackChannel::take_answers() {
  for (size_t taken = 0; taken < kMostWaiting; ++taken) {
    const auto message = TRY(channel_.receive());
    if (!message) return {};
    if (waiting_.empty()) continue;  // an answer that nobody asked for
    if (!message->is_reply() || message->request != waiting_.front().request) {
      return fail(Error(std::errc::bad_message, "another answer than that to the request"));
    }
    const Done done = std::move(waiting_.front().done);
    waiting_.pop_front();
    if (message->payload_as<uint64_t>() == 0u) {
      done({});
    } else {
      done(fail(Error::invalid("the front-end refuses")));
    }
    if (watch_ == 0) return {};
  }
  return {};
}

void VhostUserBackChannel::order(VhostUserMessage message, bool acknowledged, Done done) {
  if (watch_ == 0) {
    return done(fail(Error(std::errc::not_connected, "the channel to the front-end is closed")));
  }
  if (waiting_.size() >= kMostWaiting || (!acknowledged && channel_.wants_write())) {
    return done(fail(Error(std::errc::no_buffer_space, "the front-end is too slow")));
  }
  if (acknowledged) {
    message.flags |= kVhostUserNeedReply;
    waiting_.push_back({.request = message.request, .done = std::move(done)});
  }
  auto sent = channel_.send(std::move(message));
  if (sent) sent = send_due();
  if (!sent) close();  // tells who waits
  if (!acknowledged) done(std::move(sent));
}

void VhostUserBackChannel::ready(uint32_t events) {
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
    if (!take_answers()) return close();
    if (watch_ == 0) return;
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
