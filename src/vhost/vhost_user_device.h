#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vhost/loop_backend.h"
#include "vhost/state_transfer.h"
#include "vhost/vhost_user_backend.h"
#include "vhost/vhost_user_conversation.h"
#include "vhost/vhost_user_handshake.h"
#include "vhost/vhost_user_requests.h"
#include "vhost/vhost_user_types.h"

namespace crosvm {

/// A VhostUserBackend's half of its device on the loop: turns what FrontendRings wants into
/// messages, and lives through the end of one back-end and the start of the next.
class VhostUserDevice : public LoopDevice, public std::enable_shared_from_this<VhostUserDevice> {
 public:
  VhostUserDevice(EventLoop& loop, VhostUserOptions options);
  ~VhostUserDevice() override;
  const VhostUserOptions& options() const { return options_; }

  // Before the loop knows of it:
  Result<void> begin(Fd socket);
  Result<void> finish(const Fd* interrupt);

  // On the loop, with the mutex held:
  void attach();
  void reconnect(Fd socket, std::function<void(Result<void>)> done);
  void give_up();
  using Done = std::function<void(Result<void>)>;
  using StateDone = std::function<void(Result<std::vector<std::byte>>)>;
  void start_dirty_log(Fd log, uint64_t bytes, Done done);
  void stop_dirty_log(Done done);
  void save_state(StateDone done);
  void load_state(std::vector<std::byte> state, Done done);

  void closing() override { shared_memory_.reset(); }
  void before_verb() override;
  void after_verb() override { settle(); }
  void write_config(size_t offset, std::vector<std::byte> data) override;

  Result<void> set_features(uint64_t features) override;
  Result<void> set_memory(const GuestMemory& memory) override;
  bool ready() const override { return ready_; }
  Result<void> start_ring(uint16_t index, const FrontendRing& ring) override;
  Result<void> set_call(uint16_t index, const Fd& call) override;
  void stop_ring(uint16_t index, std::function<void(RingPosition)> stopped) override;
  void reset(std::function<void()> done) override;
  Result<RingPosition> resume_position(uint16_t index, const FrontendRing& ring) override;

 private:
  /// One back-end, from its socket to its end.
  struct Peer {
    Peer(Fd socket, const VhostUserOptions& options);
    VhostUserConversation conversation;
    VhostUserHandshake handshake;
    std::optional<Error> failure;  // the conversation is over, nothing more is sent
    std::optional<VhostUserRequests> requests;
    Fd ring_error;  // an eventfd that it signals when a ring fails
    std::vector<VhostUserMemoryRegion> memory_slots;  // added one by one
    EventLoop::WatchId watch = 0;
    EventLoop::WatchId requests_watch = 0;
    EventLoop::WatchId error_watch = 0;
    EventLoop::TimerId timer = 0;
    EventLoop::Clock::time_point timer_at{};
    uint32_t events = 0;  // those of `watch`
    unsigned served_requests = 0;
    bool requests_held = false;  // for a while, as there were too many
    EventLoop::TimerId requests_timer = 0;
    bool successor = false;  // of one that is gone
    bool driver_ok = false;  // SET_STATUS said so
    bool config_asked = false;
    bool config_changed_again = false;  // since it was asked
    bool status_asked = false;
  };
  /// Where a back-end notes what is in flight; survives it ("Inflight I/O tracking").
  struct Inflight {
    Fd fd;
    VhostUserInflight description;
    bool packed = false;
  };

  struct Log {
    Fd file;
    uint64_t bytes = 0;
  };

  const VhostUserPeer& said() const { return peer_->handshake.peer(); }
  bool has(unsigned feature) const { return said().has(feature); }
  bool up() const { return peer_ && !peer_->failure && peer_->handshake.done(); }
  /// Notes a failure of the conversation, once.
  void note(Result<void> result);
  void tell(VhostUserMessage message);
  void order(VhostUserMessage message, VhostUserConversation::OnRefused refused,
             VhostUserConversation::OnDone on_done = {});
  VhostUserConversation::OnRefused breaks_down();
  VhostUserConversation::OnRefused only_complains();

  Result<DeviceInfo> info_from_peer() const;
  Result<void> accept_another();
  void socket_ready(uint32_t events);
  Result<void> watch_requests();
  void requests_ready();
  void hold_requests();
  void ring_error_ready();
  void timer_fired();
  void settle();
  void arm_timer();
  void disconnect();
  void lose(Error cause);

  bool can_log() const;
  uint64_t features_to_tell(uint64_t features) const;
  /// Whether the device configuration is that of the back-end.
  bool has_config() const { return !options_.own_config && has(VHOST_USER_PROTOCOL_F_CONFIG); }
  VhostUserMessage vring_addr(uint16_t index, const VringAddresses& at) const;
  void send_log(const Log& log, std::function<void(Result<void>)> on_answer);
  void tell_log_again(Done done);
  Done until_lost(Done done);

  Result<void> may_hand_over_state() const;
  void begin_state(uint32_t direction, std::vector<std::byte> state, StateDone done);
  Result<void> have_state_pipe(VhostUserMessage answer, uint32_t direction, Fd ours,
                               std::vector<std::byte> state, const StateDone& done);
  void state_moved(Result<std::vector<std::byte>> moved, const StateDone& done);
  StateDone until_lost(StateDone done);

  bool serve_memory(VhostUserMessage& message);
  Result<void> map_or_unmap(VhostUserMessage& message);

  void prepare_inflight(bool packed);
  Result<void> have_inflight(VhostUserMessage answer, bool packed);
  void send_inflight();
  Result<void> send_table(std::span<const RamRegion> regions, const Fd& memfd);
  Result<void> send_slots(std::span<const RamRegion> regions, const Fd& memfd);
  Result<RingPosition> inflight_position(uint16_t index, RingPosition base) const;
  Result<void> watch_ring_error();
  void say_driver_ok();
  void send_config(const ConfigWrites::Write& write);
  void flush_config();
  void ask_config();
  Result<void> have_config(VhostUserMessage answer);
  void ask_status();

  VhostUserOptions options_;
  VhostUserType type_;
  std::unique_ptr<Peer> peer_;
  std::function<void(Result<void>)> reconnected_;  // while a handshake is under way
  bool gone_ = false;                              // for good
  const GuestMemory* memory_ = nullptr;
  std::optional<Inflight> inflight_;
  std::optional<Log> log_;  // of dirty pages, while there is one
  std::unique_ptr<StateTransfer> state_transfer_;
  bool state_busy_ = false;
  std::optional<SharedMemoryTable> shared_memory_;
  uint64_t next_pending_ = 0;
  std::map<uint64_t, Done> pending_;  // to be told when the back-end is gone
  bool ready_ = false;
  ConfigWrites waiting_writes_;
};

}  // namespace crosvm
