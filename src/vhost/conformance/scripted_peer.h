#pragma once

#include <sys/socket.h>

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "vhost/vhost_user_channel.h"

namespace crosvm {

/// Two ends of a stream socket.
inline std::pair<Fd, Fd> socket_pair() {
  std::array<int, 2> pair{};
  CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) == 0);
  return {Fd(pair[0]), Fd(pair[1])};
}

/// A vhost-user back-end without a device: answers every request correctly, but for what its script
/// does. Runs no ring.
class ScriptedPeer {
 public:
  struct Script {
    uint64_t features = vhost_user_bit(32) | vhost_user_bit(kVhostUserProtocolFeatures);
    uint64_t protocol_features = vhost_user_bit(VHOST_USER_PROTOCOL_F_MQ) |
                                 vhost_user_bit(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
                                 vhost_user_bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
                                 vhost_user_bit(VHOST_USER_PROTOCOL_F_CONFIG);
    uint64_t queues = 2;
    size_t config_length = 8;               ///< other lengths are refused
    std::vector<uint64_t> shared_memory{};  ///< sizes of the regions by ID
    /// Takes the place of the answer: nothing is sent unless it does. Returns whether it did so.
    std::function<bool(ScriptedPeer&, const VhostUserMessage&)> instead{};
  };

  ScriptedPeer(Fd socket, Script script)
      : script_(std::move(script)), socket_(std::move(socket)), thread_([this] { run(); }) {}
  ~ScriptedPeer() {
    close();
    thread_.join();
  }
  ScriptedPeer(const ScriptedPeer&) = delete;
  ScriptedPeer& operator=(const ScriptedPeer&) = delete;

  /// The connection ends, for both. From any thread.
  void close() const { ::shutdown(socket_.get(), SHUT_RDWR); }
  /// How often a request came.
  unsigned count(uint32_t request) {
    std::lock_guard lock(mutex_);
    return counts_[request];
  }
  /// The u64 of the last such request.
  uint64_t last_value(uint32_t request) {
    std::lock_guard lock(mutex_);
    return values_[request];
  }
  /// The socket for the back-end's own requests, if it came.
  std::optional<Fd> take_requests() {
    std::lock_guard lock(mutex_);
    return std::exchange(requests_, std::nullopt);
  }

  // For scripts, on the peer's thread:
  void send_bytes(std::span<const std::byte> bytes) const {
    (void)::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  void send_message(VhostUserMessage message) {
    VhostUserChannel channel(std::move(*socket_.duplicate()));
    (void)channel.send(std::move(message));
  }
  static std::vector<std::byte> wire(const VhostUserMessage& message) {
    const VhostUserHeader header{.request = message.request,
                                 .flags = message.flags | kVhostUserVersion,
                                 .size = static_cast<uint32_t>(message.payload.size())};
    std::vector<std::byte> bytes(sizeof(header) + message.payload.size());
    std::memcpy(bytes.data(), &header, sizeof(header));
    std::ranges::copy(message.payload, bytes.begin() + sizeof(header));
    return bytes;
  }
  /// What a good back-end would say, if anything.
  std::optional<VhostUserMessage> answer(const VhostUserMessage& to) const {
    switch (to.request) {
      case VHOST_USER_GET_FEATURES:
        return value(to, script_.features);
      case VHOST_USER_GET_PROTOCOL_FEATURES:
        return value(to, script_.protocol_features);
      case VHOST_USER_GET_QUEUE_NUM:
        return value(to, script_.queues);
      case VHOST_USER_GET_MAX_MEM_SLOTS:
        return value(to, 32);
      case VHOST_USER_GET_STATUS:
        return value(to, 0);
      case VHOST_USER_GET_VRING_BASE:
        return copy(to, to.payload);
      case VHOST_USER_GET_SHMEM_CONFIG: {
        const auto count = static_cast<uint32_t>(script_.shared_memory.size());
        VhostUserMessage made = copy(to, {});
        made.add(VhostUserShmemHeader{.num_regions = count, .padding = 0});
        for (const uint64_t size : script_.shared_memory) made.add(size);
        return made;
      }
      case VHOST_USER_GET_CONFIG:
        return to.payload.size() == sizeof(VhostUserConfigHeader) + script_.config_length
                   ? copy(to, to.payload)
                   : copy(to, {});
      default:
        return to.needs_reply() ? std::optional(value(to, 0)) : std::nullopt;
    }
  }
  static VhostUserMessage value(const VhostUserMessage& to, uint64_t number) {
    VhostUserMessage made = vhost_user_message(to.request, number);
    made.flags = kVhostUserReply;
    return made;
  }
  static VhostUserMessage copy(const VhostUserMessage& to, std::vector<std::byte> payload) {
    VhostUserMessage made = vhost_user_message(to.request);
    made.flags = kVhostUserReply;
    made.payload = std::move(payload);
    return made;
  }

 private:
  void run() {
    auto own = socket_.duplicate();
    CHECK(own.has_value());
    VhostUserChannel channel(std::move(*own));
    for (;;) {
      auto message = channel.wait_message(VhostUserChannel::Clock::now() + std::chrono::minutes(5));
      if (!message) return;
      note(*message);
      if (script_.instead && script_.instead(*this, *message)) continue;
      auto reply = answer(*message);
      if (!reply) continue;
      if (!channel.send(std::move(*reply)) ||
          !channel.wait_sent(VhostUserChannel::Clock::now() + std::chrono::minutes(1))) {
        return;
      }
    }
  }
  void note(VhostUserMessage& message) {
    std::lock_guard lock(mutex_);
    ++counts_[message.request];
    if (const auto number = message.payload_as<uint64_t>()) values_[message.request] = *number;
    if (message.request == VHOST_USER_SET_BACKEND_REQ_FD && !message.fds.empty()) {
      requests_ = std::move(message.fds.front());
    }
  }

  const Script script_;
  const Fd socket_;
  std::mutex mutex_;
  std::map<uint32_t, unsigned> counts_;  // guarded by mutex_, as are:
  std::map<uint32_t, uint64_t> values_;
  std::optional<Fd> requests_;
  std::thread thread_;
};

}  // namespace crosvm
