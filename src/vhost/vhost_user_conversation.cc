#include "vhost/vhost_user_conversation.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "base/format.h"
#include "base/wait_ready.h"

namespace crosvm {

using std::chrono::milliseconds;

VhostUserConversation::VhostUserConversation(Fd socket, Clock::duration patience)
    : channel_(std::move(socket)), patience_(patience) {}

std::optional<VhostUserConversation::Clock::time_point> VhostUserConversation::deadline() const {
  if (awaited_.empty()) return {};
  return silent_since_ + awaited_.front().patience;
}

Result<void> VhostUserConversation::check_deadline(Clock::time_point now) const {
  if (awaited_.empty() || now < silent_since_ + awaited_.front().patience) return {};
  return fail(Error(
      std::errc::timed_out,
      format_text("no answer to vhost-user request {} in {} ms", awaited_.front().request,
                  std::chrono::duration_cast<milliseconds>(awaited_.front().patience).count())));
}

Result<void> VhostUserConversation::transmit(VhostUserMessage message) {
  backlog_.push_back(std::move(message));
  return writable();
}

Result<void> VhostUserConversation::writable() {
  TRY(channel_.flush());
  while (!backlog_.empty() && !channel_.wants_write()) {
    VhostUserMessage next = std::move(backlog_.front());
    backlog_.pop_front();
    TRY(channel_.send(std::move(next)));
  }
  return {};
}

Result<void> VhostUserConversation::tell(VhostUserMessage message) {
  return transmit(std::move(message));
}

Result<void> VhostUserConversation::ask(VhostUserMessage message, OnAnswer on_answer,
                                        std::optional<Clock::duration> patience) {
  if (awaited_.empty()) silent_since_ = Clock::now();
  awaited_.push_back({.request = message.request,
                      .on_answer = std::move(on_answer),
                      .patience = patience.value_or(patience_)});
  return transmit(std::move(message));
}

Result<void> VhostUserConversation::order(VhostUserMessage message, OnRefused refused,
                                          OnDone on_done) {
  if (!acknowledged_) {
    TRY(transmit(std::move(message)));
    return on_done ? on_done() : Result<void>();
  }
  message.flags |= kVhostUserNeedReply;
  auto on_answer = [request = message.request, refused = std::move(refused),
                    on_done = std::move(on_done)](VhostUserMessage answer) -> Result<void> {
    const auto status = answer.payload_as<uint64_t>();
    if (!status || !answer.fds.empty()) {
      return fail(Error(std::errc::bad_message,
                        format_text("vhost-user request {} was acknowledged with {} bytes and {} "
                                    "descriptors",
                                    request, answer.payload.size(), answer.fds.size())));
    }
    if (*status != 0) {
      refused(format_text("vhost-user request {} was refused with {:#x}", request, *status));
    }
    return on_done ? on_done() : Result<void>();
  };
  return ask(std::move(message), std::move(on_answer));
}

Result<void> VhostUserConversation::take(VhostUserMessage message) {
  if (awaited_.empty()) {
    return fail(Error(std::errc::bad_message,
                      format_text("vhost-user message {} with flags {:#x}, and nothing was asked",
                                  message.request, message.flags)));
  }
  if (!message.is_reply() || awaited_.front().request != message.request) {
    return fail(
        Error(std::errc::bad_message,
              format_text("vhost-user message {} with flags {:#x} instead of the answer to {}",
                          message.request, message.flags, awaited_.front().request)));
  }
  // Gone before it is called: what it does may ask for more.
  const OnAnswer on_answer = std::move(awaited_.front().on_answer);
  awaited_.pop_front();
  silent_since_ = Clock::now();
  return on_answer(std::move(message));
}

Result<void> VhostUserConversation::readable(size_t most) {
  for (size_t i = 0; i < most; ++i) {
    auto message = TRY(channel_.receive());
    if (!message) return {};
    TRY(take(std::move(*message)));
  }
  return {};
}

Result<void> VhostUserConversation::wait_until(const std::function<bool()>& condition,
                                               Clock::time_point deadline, const Fd* interrupt) {
  for (;;) {
    TRY(readable());
    TRY(writable());
    if (condition()) return {};
    const auto now = Clock::now();
    TRY(check_deadline(now));
    if (now >= deadline) {
      return fail(
          Error(std::errc::timed_out, "the vhost-user handshake does not come to its end in time"));
    }
    const auto until = std::min(deadline, this->deadline().value_or(deadline));
    const auto events = static_cast<short>(POLLIN | (wants_write() ? POLLOUT : 0));
    if (TRY(wait_ready(socket(), events, until, interrupt)) == Waited::kInterrupted) {
      return fail(interrupted_waiting_for("the vhost-user peer"));
    }
  }
}

}  // namespace crosvm
