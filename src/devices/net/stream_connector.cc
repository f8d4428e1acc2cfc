#include "devices/net/stream_connector.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "base/socket_pair.h"
#include "base/unix_address.h"

namespace crosvm {
namespace {
constexpr PacketLimits kLimits{.bytes = 16, .fds = 1};

Result<Fd> connect_to(const UnixAddress& address, const std::string& path) {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail(Error::from_errno("creating", "a socket"));
  if (::connect(socket.get(), address.get(), address.size()) == 0) return socket;
  const int error = errno;
  const Error why = Error::from_errno("connecting to", path, error);
  std::string fix;
  if (error == ENOENT || error == ECONNREFUSED) {
    fix = "; start passt there first: passt --socket " + path;
  } else if (error == EACCES) {
    fix = "; the socket and its folder must be open to the user who starts the VM";
  } else if (error == EAGAIN) {
    fix = "; other VMs wait there: each has a passt of its own";
  } else if (error == EPROTOTYPE) {
    fix = "; it is no stream socket: give the one of passt --socket";
  }
  return fail(Error(why.code(), why.what() + fix));
}

}  // namespace

Result<Fd> connect_stream(const std::string& path) {
  return connect_to(TRY(UnixAddress::of_long(path)), path);
}

// ---- who connects

StreamConnector::StreamConnector(EventLoop& loop, std::string path, UnixAddress address, Fd asker)
    : loop_(loop),
      path_(std::move(path)),
      address_(std::move(address)),
      asker_(std::move(asker), kLimits) {}

Result<std::unique_ptr<StreamConnector>> StreamConnector::create(EventLoop& loop, std::string path,
                                                                 Fd asker) {
  TRY(set_non_blocking(asker));
  auto address = TRY(UnixAddress::of_long(path));
  std::unique_ptr<StreamConnector> self(
      new StreamConnector(loop, std::move(path), std::move(address), std::move(asker)));
  self->watch_ =
      TRY(loop.watch(self->asker_.fd(), EPOLLIN, [raw = self.get()](uint32_t) { raw->hear(); }));
  return self;
}

StreamConnector::~StreamConnector() {
  loop_.unwatch(watch_);
  loop_.cancel(timer_);
}

void StreamConnector::hear() {
  auto packet = asker_.receive();
  if (!packet && packet.error().code() == std::errc::resource_unavailable_try_again) return;
  if (!packet || !*packet) return loop_.unwatch(std::exchange(watch_, 0));  // the device has gone
  // However often it asks, it is one connection that it waits for.
  if (timer_ != 0) return;
  // Who ends a connection at once serves somebody else, and is not asked twice a second for ever.
  const bool short_lived = Clock::now() - connected_at_ < kShortLife;
  pause_ = short_lived ? std::min(2 * pause_, kMostPause) : kPause;
  timer_ = loop_.after(pause_, [this] { connect(); });
}

void StreamConnector::connect() {
  timer_ = 0;
  auto socket = connect_to(address_, path_);
  if (!socket) {
    timer_ = loop_.after(kPause, [this] { connect(); });
    return;
  }
  connected_at_ = Clock::now();
  Packet answer{.text = "connected", .fds = {}};
  answer.fds.push_back(*std::move(socket));
  if (auto sent = asker_.send(answer); !sent) log::warn("{}: {}", path_, sent.error().what());
}

// ---- who asks

StreamAsker::StreamAsker(EventLoop& loop, Fd connector, Connected connected)
    : loop_(loop), connector_(std::move(connector), kLimits), connected_(std::move(connected)) {}

Result<std::unique_ptr<StreamAsker>> StreamAsker::create(EventLoop& loop, Fd connector,
                                                         Connected connected) {
  TRY(set_non_blocking(connector));
  std::unique_ptr<StreamAsker> self(
      new StreamAsker(loop, std::move(connector), std::move(connected)));
  self->watch_ = TRY(
      loop.watch(self->connector_.fd(), EPOLLIN, [raw = self.get()](uint32_t) { raw->hear(); }));
  return self;
}

StreamAsker::~StreamAsker() { loop_.unwatch(watch_); }

void StreamAsker::ask() { (void)connector_.send({.text = "connect", .fds = {}}); }

void StreamAsker::hear() {
  auto packet = connector_.receive();
  if (!packet && packet.error().code() == std::errc::resource_unavailable_try_again) return;
  if (!packet || !*packet) return loop_.unwatch(std::exchange(watch_, 0));
  if ((*packet)->fds.size() == 1) connected_(std::move((*packet)->fds.front()));
}

}  // namespace crosvm
