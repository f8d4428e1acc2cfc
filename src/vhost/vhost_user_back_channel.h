#pragma once

#include <deque>
#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "vhost/vhost_user_channel.h"

namespace crosvm {

/// The socket on which a back-end makes requests of its front-end ("Back-end communication").
/// Once it fails it is silent.
class VhostUserBackChannel {
 public:
  /// `loop` outlives the channel. Errors: `socket` is none that can be watched.
  static Result<std::unique_ptr<VhostUserBackChannel>> create(EventLoop& loop, Fd socket);
  ~VhostUserBackChannel();
  VhostUserBackChannel(const VhostUserBackChannel&) = delete;
  VhostUserBackChannel& operator=(const VhostUserBackChannel&) = delete;

  /// CONFIG_CHANGE_MSG. While the front-end does not read, many are as good as one. Errors: those
  /// of the channel, once.
  Result<void> tell_config_change();

  using Done = std::function<void(Result<void>)>;
  static constexpr size_t kMostWaiting = 64;
  /// Sends a request. `done` is called once, perhaps at once: with what the front-end answers if
  /// that is `acknowledged`, else when it was sent. Errors of `done`: invalid_argument when the
  /// front-end refuses, not_connected, no_buffer_space when it owes kMostWaiting answers or does
  /// not read.
  void order(VhostUserMessage message, bool acknowledged, Done done);

 private:
  struct Waiting {
    uint32_t request;
    Done done;
  };
  VhostUserBackChannel(EventLoop& loop, Fd socket) : loop_(loop), channel_(std::move(socket)) {}
  void ready(uint32_t events);
  Result<void> send_due();
  Result<void> take_answers();
  void close();

  EventLoop& loop_;
  VhostUserChannel channel_;
  EventLoop::WatchId watch_ = 0;  // 0: failed
  bool change_due_ = false;
  std::deque<Waiting> waiting_;  // in the order of the requests
};

}  // namespace crosvm
