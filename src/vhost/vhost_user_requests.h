#pragma once

#include <optional>

#include "vhost/vhost_user_channel.h"

namespace crosvm {

/// The channel on which a back-end makes requests of its own ("Back-end communication"): each is
/// answered if it asks for that, with an error if we do not serve it.
class VhostUserRequests {
 public:
  enum class News {
    kNothing,  ///< nothing has come, for now
    kUnknown,  ///< a request that we do not serve
    kConfigChanged,
    kRingFailed,
  };

  explicit VhostUserRequests(Fd socket) : channel_(std::move(socket)) {}

  /// To be watched for EPOLLIN, and for EPOLLOUT while `wants_write()`. Borrowed.
  const Fd& socket() const { return channel_.socket(); }
  bool wants_write() const { return channel_.wants_write(); }
  /// Takes one request and answers it. Errors: those of the channel; bad_message for an answer,
  /// as we ask nothing.
  Result<News> take_one();

 private:
  VhostUserChannel channel_;
};

}  // namespace crosvm
