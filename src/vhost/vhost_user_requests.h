#pragma once

#include <functional>
#include <optional>
#include <utility>

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
    kSharedMemory,  ///< SHMEM_MAP or SHMEM_UNMAP, which was served or refused
  };
  /// Serves these two; whether it did. None: they are unknown.
  using ServeMemory = std::function<bool(VhostUserMessage& message)>;

  explicit VhostUserRequests(Fd socket, ServeMemory serve_memory = {})
      : channel_(std::move(socket)), serve_memory_(std::move(serve_memory)) {}

  /// To be watched for EPOLLIN, and for EPOLLOUT while `wants_write()`. Borrowed.
  const Fd& socket() const { return channel_.socket(); }
  bool wants_write() const { return channel_.wants_write(); }
  /// Takes one request and answers it. Errors: those of the channel; bad_message for an answer,
  /// as we ask nothing.
  Result<News> take_one();

 private:
  VhostUserChannel channel_;
  ServeMemory serve_memory_;
};

}  // namespace crosvm
