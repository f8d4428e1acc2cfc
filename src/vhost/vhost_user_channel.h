#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "vhost/vhost_user_protocol.h"

namespace crosvm {

/// One message of either direction, with the descriptors that came along.
struct VhostUserMessage {
  uint32_t request = 0;
  uint32_t flags = 0;  ///< kVhostUserReply, kVhostUserNeedReply; `send` adds the version
  std::vector<std::byte> payload;
  std::vector<Fd> fds;

  bool is_reply() const { return (flags & kVhostUserReply) != 0; }
  bool needs_reply() const { return (flags & kVhostUserNeedReply) != 0; }

  /// The payload as a T, if it has exactly that size.
  template <class T>
    requires std::is_trivially_copyable_v<T>
  std::optional<T> payload_as() const {
    if (payload.size() != sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, payload.data(), sizeof(T));
    return value;
  }
  /// Appends the bytes of `value` to the payload.
  template <class T>
    requires std::has_unique_object_representations_v<T>
  void add(const T& value) {
    const size_t at = payload.size();
    payload.resize(at + sizeof(T));
    std::memcpy(payload.data() + at, &value, sizeof(T));
  }
};

/// A message without payload, and one with a payload of one structure or number.
inline VhostUserMessage vhost_user_message(uint32_t request) {
  return {.request = request, .flags = 0, .payload = {}, .fds = {}};
}
template <class T>
VhostUserMessage vhost_user_message(uint32_t request, const T& payload) {
  VhostUserMessage message = vhost_user_message(request);
  message.add(payload);
  return message;
}

/// One end of a vhost-user connection: messages over a stream socket. No call but `call` blocks, or
/// raises SIGPIPE. After an error of any call the connection is of no use any more.
class VhostUserChannel {
 public:
  using Clock = std::chrono::steady_clock;
  /// What waits for a peer that does not read, at most: more is an error.
  static constexpr size_t kMostQueuedMessages = 256;
  static constexpr size_t kMostQueuedBytes = 256 << 10;

  /// `socket` is a connected stream socket, blocking or not.
  explicit VhostUserChannel(Fd socket) : socket_(std::move(socket)) {}

  /// To be watched for EPOLLIN, and for EPOLLOUT while `wants_write()`. Borrowed.
  const Fd& socket() const { return socket_; }

  /// The next message, or nothing until more bytes come. Errors: not_connected when the peer closed
  /// between two messages, connection_aborted in the middle of one, protocol_not_supported for
  /// another version, message_size for a payload of more than kVhostUserMaxPayload bytes,
  /// argument_list_too_long for more than kVhostUserMaxFds descriptors, too_many_files_open when we
  /// have no room for them; else the errno of recvmsg.
  Result<std::optional<VhostUserMessage>> receive();

  /// Sends as much as the socket takes, and keeps the rest for `flush`. Errors: no_buffer_space
  /// when the peer has let too much pile up, else the errno of sendmsg.
  Result<void> send(VhostUserMessage message);
  /// Goes on with what is left. Errors: as above.
  Result<void> flush();
  bool wants_write() const { return !queue_.empty(); }

  /// Sends and waits for the answer, until `deadline`: for handshakes. Errors: as above, timed_out
  /// naming the request, bad_message when something else than its answer comes.
  Result<VhostUserMessage> call(VhostUserMessage message, Clock::time_point deadline);
  /// Waits until a message is there.
  Result<VhostUserMessage> wait_message(Clock::time_point deadline);
  /// Waits until all is sent.
  Result<void> wait_sent(Clock::time_point deadline);

 private:
  /// What was read of the next message.
  struct Incoming {
    VhostUserHeader header;
    size_t header_bytes = 0;
    size_t payload_bytes = 0;
    VhostUserMessage message;
  };
  struct Outgoing {
    std::vector<std::byte> bytes;
    size_t sent = 0;
    std::vector<Fd> fds;  // go with the first byte
  };
  /// Bytes read, or nothing for now.
  Result<std::optional<size_t>> read_some(std::span<std::byte> to);
  Result<bool> read_header();
  Result<bool> read_payload();
  Result<size_t> write_some(const Outgoing& out) const;

  Fd socket_;
  Incoming incoming_;
  std::deque<Outgoing> queue_;
  size_t queued_bytes_ = 0;
};

}  // namespace crosvm
