#pragma once

#include <memory>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "vhost/vhost_user_channel.h"

namespace crosvm {

/// The socket on which a back-end makes requests of its front-end ("Back-end communication").
/// It asks for no answer. Once it fails it is silent.
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

 private:
  VhostUserBackChannel(EventLoop& loop, Fd socket) : loop_(loop), channel_(std::move(socket)) {}
  void ready(uint32_t events);
  Result<void> send_due();
  void close();

  EventLoop& loop_;
  VhostUserChannel channel_;
  EventLoop::WatchId watch_ = 0;  // 0: failed
  bool change_due_ = false;
};

}  // namespace crosvm
