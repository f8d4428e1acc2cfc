#include "vhost/state_transfer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

constexpr const char* kObject = "the pipe for the state of a device";

bool for_now() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

Result<std::unique_ptr<StateTransfer>> StateTransfer::receive(const Options& options, Fd pipe,
                                                              Done done) {
  return start(
      std::unique_ptr<StateTransfer>(new StateTransfer(options, std::move(pipe), std::move(done))),
      EPOLLIN);
}

Result<std::unique_ptr<StateTransfer>> StateTransfer::send(const Options& options, Fd pipe,
                                                           std::vector<std::byte> bytes,
                                                           Done done) {
  std::unique_ptr<StateTransfer> transfer(
      new StateTransfer(options, std::move(pipe), std::move(done)));
  transfer->sending_ = true;
  transfer->bytes_ = std::move(bytes);
  return start(std::move(transfer), EPOLLOUT);
}

Result<std::unique_ptr<StateTransfer>> StateTransfer::start(std::unique_ptr<StateTransfer> transfer,
                                                            uint32_t events) {
  StateTransfer* const self = transfer.get();
  const int flags = ::fcntl(self->pipe_.get(), F_GETFL);
  if (flags < 0 || ::fcntl(self->pipe_.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail(Error::from_errno("making it non-blocking", kObject));
  }
  EventLoop& loop = self->options_.loop;
  self->watch_ = TRY(
      with_context(loop.watch(self->pipe_, events, [self](uint32_t) { self->ready(); }), kObject));
  if (const auto patience = self->options_.patience) {
    self->timer_ = loop.after(*patience, [self] {
      self->timer_ = 0;
      self->finish(
          fail(Error(std::errc::timed_out, "the state of a device does not come to its end")));
    });
  }
  return transfer;
}

StateTransfer::~StateTransfer() { stop(); }

void StateTransfer::stop() {
  if (watch_ != 0) options_.loop.unwatch(std::exchange(watch_, 0));
  if (timer_ != 0) options_.loop.cancel(std::exchange(timer_, 0));
  pipe_ = {};
}

void StateTransfer::finish(Result<void> result) {
  stop();
  const Done done = std::move(done_);
  if (!result) return done(fail(std::move(result).error()));
  done(sending_ ? std::vector<std::byte>() : std::move(bytes_));
}

void StateTransfer::ready() {
  auto ended = sending_ ? write_some() : read_some();
  if (!ended) return finish(fail(std::move(ended).error()));
  if (*ended) finish({});
}

Result<bool> StateTransfer::read_some() {
  std::array<std::byte, 64 << 10> part;
  const ssize_t got = ::read(pipe_.get(), part.data(), part.size());
  if (got < 0) {
    if (for_now()) return false;
    return fail(Error::from_errno("reading", kObject));
  }
  if (got == 0) return true;
  if (static_cast<size_t>(got) > options_.most - bytes_.size()) {
    return fail(Error(std::errc::message_size,
                      format_text("the state of a device has more than {} bytes", options_.most)));
  }
  bytes_.insert(bytes_.end(), part.begin(), part.begin() + got);
  return false;
}

Result<bool> StateTransfer::write_some() {
  if (sent_ == bytes_.size()) return true;
  const ssize_t put = ::write(pipe_.get(), bytes_.data() + sent_, bytes_.size() - sent_);
  if (put < 0) {
    if (for_now()) return false;
    return fail(Error::from_errno("writing to", kObject));
  }
  sent_ += static_cast<size_t>(put);
  return sent_ == bytes_.size();
}

}  // namespace crosvm
