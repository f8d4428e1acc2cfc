#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>

#include "base/result.h"
#include "vhost/vhost_user_channel.h"

namespace crosvm {

/// The front-end's side of a vhost-user connection: requests go out in order, and each answer is
/// taken to the request that waits for it. Knows no event loop, so that a handshake can wait on its
/// own. No call but `wait_until` blocks. After an error the conversation is over.
class VhostUserConversation {
 public:
  using Clock = VhostUserChannel::Clock;
  /// Looks at an answer; an error ends the conversation.
  using OnAnswer = std::function<Result<void>(VhostUserMessage answer)>;
  using OnDone = std::function<Result<void>()>;
  /// The back-end did not do what it was asked to.
  using OnRefused = std::function<void(const std::string& why)>;

  /// `patience`: how long a back-end may be silent while it owes an answer.
  VhostUserConversation(Fd socket, Clock::duration patience);

  /// To be watched for EPOLLIN, and for EPOLLOUT while `wants_write()`. Borrowed.
  const Fd& socket() const { return channel_.socket(); }
  bool wants_write() const { return channel_.wants_write(); }
  /// When an answer is overdue, if one is awaited.
  std::optional<Clock::time_point> deadline() const;
  /// timed_out, naming the request, when the deadline has passed.
  Result<void> check_deadline(Clock::time_point now) const;

  /// Asks for acknowledgements from now on (REPLY_ACK).
  void expect_acknowledgements() { acknowledged_ = true; }

  /// Sends a request without an answer.
  Result<void> tell(VhostUserMessage message);
  /// Sends one whose answer has a payload of its own. `patience`: other than usual.
  Result<void> ask(VhostUserMessage message, OnAnswer on_answer,
                   std::optional<Clock::duration> patience = {});
  /// Sends one that the back-end acknowledges, if it does such a thing; else it counts as done at
  /// once. `on_done` may be empty. `refused` gets what the back-end does not do; the conversation
  /// goes on, and `on_done` is called all the same.
  Result<void> order(VhostUserMessage message, OnRefused refused, OnDone on_done = {});

  /// Takes what has come: at most `most` messages. Errors: those of the channel, bad_message for
  /// an answer to no request.
  Result<void> readable(size_t most = 64);
  /// Goes on sending.
  Result<void> writable();
  /// Reads and writes, blocking, until `condition` holds. Errors: as above, timed_out, and
  /// interrupted by `interrupt` (wait_ready).
  Result<void> wait_until(const std::function<bool()>& condition, Clock::time_point deadline,
                          const Fd* interrupt = nullptr);

 private:
  struct Awaited {
    uint32_t request;
    OnAnswer on_answer;
    Clock::duration patience;
  };
  Result<void> transmit(VhostUserMessage message);
  Result<void> take(VhostUserMessage message);

  VhostUserChannel channel_;
  Clock::duration patience_;
  bool acknowledged_ = false;
  // What the peer is too slow to take. Bounded by who calls: a driver sets up each queue once, and
  // then waits for a reset.
  std::deque<VhostUserMessage> backlog_;
  std::deque<Awaited> awaited_;       // in the order of the requests, as are the answers
  Clock::time_point silent_since_{};  // counts while something is awaited
};

}  // namespace crosvm
