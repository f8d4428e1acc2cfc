#include "devices/net/stream_connector.h"

#include <utility>

#include "base/log.h"
#include "base/socket_pair.h"

namespace crosvm {
namespace {
constexpr PacketLimits kLimits{.bytes = 16, .fds = 1};
}  // namespace

// ---- who connects

StreamConnector::StreamConnector(EventLoop& loop, std::string path, Fd asker)
    : loop_(loop), path_(std::move(path)), asker_(std::move(asker), kLimits) {}

Result<std::unique_ptr<StreamConnector>> StreamConnector::create(EventLoop& loop, std::string path,
                                                                 Fd asker) {
  TRY(set_non_blocking(asker));
  std::unique_ptr<StreamConnector> self(
      new StreamConnector(loop, std::move(path), std::move(asker)));
  self->dialer_ = TRY(StreamDialer::create(
      loop, self->path_, [raw = self.get()](Fd socket) { raw->answer(std::move(socket)); }));
  self->watch_ =
      TRY(loop.watch(self->asker_.fd(), EPOLLIN, [raw = self.get()](uint32_t) { raw->hear(); }));
  return self;
}

StreamConnector::~StreamConnector() { loop_.unwatch(watch_); }

void StreamConnector::hear() {
  auto packet = asker_.receive();
  if (!packet && packet.error().code() == std::errc::resource_unavailable_try_again) return;
  if (!packet || !*packet) return loop_.unwatch(std::exchange(watch_, 0));  // the device has gone
  dialer_->dial();
}

void StreamConnector::answer(Fd socket) {
  Packet answer{.text = "connected", .fds = {}};
  answer.fds.push_back(std::move(socket));
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
