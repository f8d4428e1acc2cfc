#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/log_limit.h"
#include "base/result.h"
#include "memory/guest_memory.h"
#include "vhost/inflight_region.h"
#include "vhost/state_transfer.h"
#include "vhost/vhost_memory_table.h"
#include "vhost/vhost_user_answers.h"
#include "vhost/vhost_user_back_channel.h"
#include "vhost/vhost_user_channel.h"
#include "virtio/device_host.h"

namespace crosvm {

/// What one front-end has negotiated and set up, from its first message to its end: takes each
/// message and makes calls of a DeviceHost out of it. The front-end is not trusted: what it says
/// and cannot be is refused by an error answer, and changes nothing.
class VhostUserSession : public std::enable_shared_from_this<VhostUserSession> {
 public:
  /// What outlives every session.
  struct Device {
    std::string name;
    EventLoop& loop;
    DeviceHost& host;
    LogLimit& complaints;
    std::unique_ptr<GuestMemory>& memory;  ///< what `host` uses
    DeviceInfo info;                       ///< as it was created
  };
  /// `answered` is called when an answer is due that was not when `handle` returned.
  VhostUserSession(Device& device, std::function<void()> answered)
      : device_(device), answered_(std::move(answered)), rings_(device.info.queue_sizes.size()) {}

  void handle(VhostUserMessage message);
  /// The next answer to be sent.
  std::optional<VhostUserMessage> next_answer() { return answers_.next(); }
  /// No further message is taken before something was done.
  bool busy() const { return exclusive_ || answers_.outstanding() >= kMostOutstanding; }

  // From the device.
  void config_changed();
  void needs_reset();
  void map_shared(const SharedPlace& place, SharedFile file, DeviceEvents::MapDone done);
  void unmap_shared(const SharedPlace& place, DeviceEvents::MapDone done);

 private:
  using Ticket = VhostUserAnswers::Ticket;
  /// What came of a message: an acknowledgement if it was asked for, its own answer, or that later.
  struct Later {};
  struct Ack {};
  using Answer = std::variant<Ack, VhostUserMessage, Later>;

  struct Ring {
    std::optional<VhostUserVringAddr> user;  // as the front-end sent it
    std::optional<uint32_t> base;            // likewise
    VringAddresses addresses;                // what the host was told last
    bool enabled = false;                    // by SET_VRING_ENABLE
    Fd error;                                // signalled when the device needs a reset
  };
  static constexpr size_t kMostOutstanding = 64;

  Result<Answer> take(VhostUserMessage& message, Ticket ticket);
  Result<Answer> take_vring(VhostUserMessage& message, Ticket ticket);
  Result<Answer> take_memory(VhostUserMessage& message, Ticket ticket);
  void answer_error(const VhostUserMessage& message, Ticket ticket);
  void finish(Ticket ticket, std::optional<VhostUserMessage> answer);
  bool wants_acknowledgement(const VhostUserMessage& message) const;
  /// To be called when all that the message changes has changed; until then no other is taken.
  std::function<void()> acknowledge_later(const VhostUserMessage& message, Ticket ticket);
  /// The same with this answer, if any.
  std::function<void()> answer_later(Ticket ticket, std::optional<VhostUserMessage> answer);

  uint64_t offered_protocol_features() const;
  Result<Answer> set_mtu(const VhostUserMessage& message);
  Result<Answer> set_owner();
  Result<Answer> set_features(const VhostUserMessage& message, Ticket ticket);
  Result<Answer> set_protocol_features(uint64_t features);
  Result<GuestMemory> set_mem_table(VhostUserMessage& message);
  Result<Answer> use_memory(const VhostUserMessage& message, Ticket ticket, GuestMemory memory);
  Result<Answer> set_vring_addr(const VhostUserMessage& message, Ticket ticket);
  Result<Answer> set_vring_base(const VhostUserVringState& state);
  Result<Answer> get_vring_base(const VhostUserVringState& state, Ticket ticket);
  Result<Answer> set_vring_fd(VhostUserMessage& message);
  Result<Answer> set_vring_enable(const VhostUserVringState& state);
  Result<Answer> get_config(const VhostUserMessage& message);
  Result<Answer> set_config(const VhostUserMessage& message);
  Result<Answer> set_backend_channel(VhostUserMessage& message);
  Result<Answer> set_status(const VhostUserMessage& message, Ticket ticket);
  Result<Answer> reset(const VhostUserMessage& message, Ticket ticket);
  Result<Answer> get_inflight(const VhostUserMessage& message);
  Result<Answer> set_inflight(VhostUserMessage& message);
  Result<void> use_inflight();
  Result<Answer> set_log_base(VhostUserMessage& message, Ticket ticket);
  Result<Answer> set_log_fd(VhostUserMessage& message, Ticket ticket);
  bool use_log();
  Result<Answer> set_device_state(VhostUserMessage& message);
  Result<Answer> check_device_state(const VhostUserMessage& message, Ticket ticket);
  Result<void> begin_state(const VhostUserDeviceState& wanted, Fd pipe);
  void end_state(Result<void> result);
  void drop_state();
  Result<Answer> get_shmem_config(const VhostUserMessage& message);
  void order_shared(VhostUserMessage message, DeviceEvents::MapDone done);

  Result<uint16_t> queue_index(uint64_t index) const;
  std::optional<VringAddresses> translate(const VhostUserVringAddr& user) const;
  void update_ring(uint16_t index);
  void update_rings();
  void apply_base(uint16_t index);
  bool has_feature(unsigned bit) const { return (features_ >> bit & 1) != 0; }
  bool has_protocol(unsigned bit) const { return (protocol_features_ >> bit & 1) != 0; }
  void tell_change();

  Device& device_;
  std::function<void()> answered_;
  VhostUserAnswers answers_;
  bool handling_ = false;
  bool exclusive_ = false;  // a change of all rings is under way

  bool owned_ = false;
  uint64_t features_ = 0;
  uint64_t protocol_features_ = 0;
  VhostMemoryTable table_;
  std::vector<Ring> rings_;
  uint8_t status_ = 0;
  bool needs_reset_ = false;
  std::unique_ptr<VhostUserBackChannel> back_channel_;
  std::shared_ptr<InflightRegion> inflight_;  // or null
  std::shared_ptr<DirtyLog> log_;             // or null
  Fd log_event_;                              // signalled when something was logged
  std::shared_ptr<DirtyLog> used_log_;        // what the host was told
  // The state of the device that is handed over: while it is, and what came of it until asked for.
  std::unique_ptr<StateTransfer> state_transfer_;
  std::optional<bool> state_taken_;
  std::optional<Ticket> state_asked_;
};

}  // namespace crosvm
