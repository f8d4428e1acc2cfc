#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/result.h"
#include "vhost/vhost_user_conversation.h"

namespace crosvm {

/// What a back-end says of itself.
struct VhostUserPeer {
  uint64_t features = 0;                ///< as offered, vhost's own bits included
  uint64_t protocol_features = 0;       ///< as agreed
  uint64_t queues = 0;                  ///< GET_QUEUE_NUM; 0: it was not asked
  uint64_t mem_slots = 0;               ///< GET_MAX_MEM_SLOTS; 0: it was not asked
  std::vector<std::byte> config;        ///< empty: it has none to tell
  std::vector<uint64_t> shared_memory;  ///< GET_SHMEM_CONFIG: sizes by ID, bytes

  bool has(unsigned protocol_feature) const {
    return (protocol_features & vhost_user_bit(protocol_feature)) != 0;
  }
  /// SHMEM, by either number.
  bool shares_memory() const {
    return has(VHOST_USER_PROTOCOL_F_SHMEM) || has(VHOST_USER_PROTOCOL_F_SHMEM_OTHER);
  }
  bool negotiates() const { return (features & vhost_user_bit(kVhostUserProtocolFeatures)) != 0; }
};

/// The start of a conversation with a back-end ("Communication"): features, protocol features, and
/// what depends on them. Goes on by itself as answers come.
class VhostUserHandshake {
 public:
  /// Protocol features that this front-end makes use of.
  static constexpr uint64_t kProtocolFeatures =
      vhost_user_bit(VHOST_USER_PROTOCOL_F_MQ) | vhost_user_bit(VHOST_USER_PROTOCOL_F_LOG_SHMFD) |
      vhost_user_bit(VHOST_USER_PROTOCOL_F_REPLY_ACK) | vhost_user_bit(VHOST_USER_PROTOCOL_F_MTU) |
      vhost_user_bit(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |
      vhost_user_bit(VHOST_USER_PROTOCOL_F_CONFIG) |
      vhost_user_bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) |
      vhost_user_bit(VHOST_USER_PROTOCOL_F_RESET_DEVICE) |
      vhost_user_bit(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) |
      vhost_user_bit(VHOST_USER_PROTOCOL_F_STATUS) |
      vhost_user_bit(VHOST_USER_PROTOCOL_F_DEVICE_STATE);

  /// Those that it makes use of on top when somebody shows shared memory.
  static constexpr uint64_t kSharingFeatures =
      vhost_user_bit(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) |
      vhost_user_bit(VHOST_USER_PROTOCOL_F_SHMEM);

  /// `config_lengths`: of the device configuration in bytes; the first that the back-end answers to
  /// is taken. None, or a first one of 0: it is not asked. `shared_memory`: whether somebody
  /// shows that to the driver. `conversation` outlives this.
  VhostUserHandshake(VhostUserConversation& conversation, std::vector<size_t> config_lengths,
                     bool shared_memory = false);

  /// Sends the first requests. `on_done` is called once, within a call of the conversation.
  Result<void> begin(std::function<Result<void>()> on_done = {});
  bool done() const { return done_; }
  const VhostUserPeer& peer() const { return peer_; }
  /// Our end of the channel for the back-end's own requests, if there is one. Once.
  std::optional<Fd> take_requests() { return std::exchange(requests_, std::nullopt); }

 private:
  Result<void> ask(uint32_t request, std::function<Result<void>(uint64_t)> on_answer);
  Result<void> have_features(uint64_t features);
  Result<void> have_protocol_features(uint64_t offered);
  uint64_t agreed(uint64_t offered) const;
  Result<void> open_requests();
  Result<void> ask_shared_memory();
  Result<void> ask_config();
  Result<void> have_config(size_t length, VhostUserMessage answer);
  Result<void> one_less();

  VhostUserConversation& conversation_;
  std::vector<size_t> config_lengths_;
  bool shared_memory_;
  size_t next_length_ = 0;
  std::function<Result<void>()> on_done_;
  VhostUserPeer peer_;
  std::optional<Fd> requests_;
  size_t outstanding_ = 0;
  bool done_ = false;
};

/// GET_CONFIG of `length` bytes from the start.
VhostUserMessage vhost_user_get_config(size_t length);
/// Its answer: the configuration, or nothing when the back-end refused. Errors: bad_message for
/// anything else.
Result<std::optional<std::vector<std::byte>>> vhost_user_config_of(const VhostUserMessage& answer,
                                                                   size_t length);
/// The answer to GET_SHMEM_CONFIG: sizes by ID in bytes, without zeroes at the end. Errors:
/// bad_message when it is none, or the sizes cannot be.
Result<std::vector<uint64_t>> vhost_user_shared_memory_of(const VhostUserMessage& answer);

}  // namespace crosvm
