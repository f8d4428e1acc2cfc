#include "devices/net/stream_port.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

constexpr size_t kLengthBytes = 4;
constexpr size_t kInputBytes = 2 * (kLengthBytes + kMostPacketBytes);

size_t length_at(const std::byte* at) {
  size_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length = length << 8 | std::to_integer<size_t>(at[i]);
  return length;
}

}  // namespace

StreamPort::StreamPort(EventLoop& loop, Fd socket, std::string name)
    : loop_(loop), socket_(std::move(socket)), name_(std::move(name)), input_(kInputBytes) {}

StreamPort::~StreamPort() { loop_.unwatch(watch_); }

void StreamPort::begin(Events events) {
  events_ = std::move(events);
  begun_ = true;
  update_watch();
}

void StreamPort::connect(Fd socket) {
  loop_.unwatch(std::exchange(watch_, 0));
  socket_ = std::move(socket);
  first_ = last_ = sent_ = 0;
  output_.clear();
  update_watch();
  log::info("{}: connected again; the link is up", name_);
  if (begun_) events_.link_changed(true);
  if (begun_ && std::exchange(sending_waits_, false)) events_.sendable();
}

void StreamPort::lose(const std::string& why) {
  loop_.unwatch(std::exchange(watch_, 0));
  socket_ = {};
  log::error("{}: {}; the link is down", name_, why);
  // Not from within a call of the card.
  loop_.post([this, still = std::weak_ptr(alive_)] {
    if (still.expired() || socket_) return;
    if (begun_) events_.link_changed(false);
    if (begun_ && std::exchange(sending_waits_, false)) events_.sendable();
    if (lost_) lost_();
  });
}

/// Without anything to wait for, the end of the connection is still heard of.
void StreamPort::update_watch() {
  if (!begun_ || !socket_) return;
  const uint32_t wanted =
      (listening_ ? EPOLLIN : 0U) | (output_.empty() ? 0U : EPOLLOUT) | EPOLLRDHUP;
  if (watch_ != 0 && wanted == watched_) return;
  watched_ = wanted;
  if (watch_ != 0) {
    (void)loop_.set_events(watch_, wanted);
    return;
  }
  auto watch = loop_.watch(socket_, wanted, [this](uint32_t events) { ready(events); });
  if (watch) {
    watch_ = *watch;
  } else {
    lose(watch.error().what());
  }
}

void StreamPort::ready(uint32_t events) {
  if ((events & EPOLLOUT) != 0) flush();
  // What came before the end can still be received.
  if (!listening_ && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0 && socket_) {
    return lose("it has closed the connection");
  }
  if (listening_ && socket_) events_.receivable();
  wake();
}

// ---- to the guest

void StreamPort::listen(bool on) {
  if (std::exchange(listening_, on) == on) return;
  update_watch();
  wake();
}

/// Frames that are here already make no socket readable.
void StreamPort::wake() {
  if (!listening_ || last_ - first_ < kLengthBytes || waking_) return;
  waking_ = true;
  loop_.post([this, still = std::weak_ptr(alive_)] {
    if (still.expired()) return;
    waking_ = false;
    if (!listening_ || !whole_frame()) return;
    events_.receivable();
    wake();
  });
}

std::optional<size_t> StreamPort::whole_frame() {
  if (last_ - first_ < kLengthBytes) return std::nullopt;
  const size_t length = length_at(&input_[first_]);
  if (length < kEthernetHeaderBytes || length > kMostPacketBytes) {
    first_ = last_ = 0;
    if (socket_) lose(format_text("it sends a frame of {} bytes", length));
    return std::nullopt;
  }
  if (last_ - first_ < kLengthBytes + length) return std::nullopt;
  return length;
}

void StreamPort::fill_input() {
  if (!socket_) return;
  if (first_ > 0) {
    std::memmove(input_.data(), &input_[first_], last_ - first_);
    last_ -= std::exchange(first_, 0);
  }
  const ssize_t got = ::recv(socket_.get(), &input_[last_], input_.size() - last_, MSG_DONTWAIT);
  if (got > 0) {
    last_ += static_cast<size_t>(got);
  } else if (got == 0) {
    lose("it has closed the connection");
  } else if (errno != EAGAIN && errno != EINTR) {
    lose(Error::from_errno("receiving from", name_).what());
  }
}

std::optional<size_t> StreamPort::receive(const ChainBuffers& room) {
  std::optional<size_t> length = whole_frame();
  if (!length) {
    fill_input();
    length = whole_frame();
  }
  if (!length) return std::nullopt;
  const auto frame = std::span(input_).subspan(first_ + kLengthBytes, *length);
  first_ += kLengthBytes + *length;
  if (room.size() < kNetHeaderBytes) return 0;
  const size_t fits = std::min<size_t>(*length, room.size() - kNetHeaderBytes);
  CHECK(room.write(0, NetHeader{}));
  CHECK(room.write_bytes(kNetHeaderBytes, frame.first(fits)));
  return kNetHeaderBytes + fits;
}

// ---- from the guest

NetPort::Sent StreamPort::send(const NetHeader&, const ChainBuffers& packet) {
  if (!socket_) return Sent::kDone;  // as into a cable that is not plugged in
  if (!output_.empty()) {
    sending_waits_ = true;
    return Sent::kLater;
  }
  const auto length = static_cast<uint32_t>(std::min<uint64_t>(packet.size(), kMostPacketBytes));
  output_.resize(kLengthBytes + length);
  for (size_t i = 0; i < kLengthBytes; ++i) {
    output_[i] = std::byte(static_cast<uint8_t>(length >> (24 - 8 * i)));
  }
  CHECK(packet.read_bytes(0, std::span(output_).subspan(kLengthBytes)));
  sent_ = 0;
  flush();
  return Sent::kDone;
}

void StreamPort::flush() {
  while (!output_.empty() && socket_) {
    const ssize_t put =
        ::send(socket_.get(), &output_[sent_], output_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno != EAGAIN) {
      output_.clear();
      return lose(Error::from_errno("sending to", name_).what());
    }
    if (put < 0) return update_watch();
    sent_ += static_cast<size_t>(put);
    if (sent_ == output_.size()) output_.clear();
  }
  update_watch();
  if (!std::exchange(sending_waits_, false)) return;
  loop_.post([this, still = std::weak_ptr(alive_)] {
    if (!still.expired()) events_.sendable();
  });
}

}  // namespace crosvm
