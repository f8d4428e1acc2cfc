#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/event_loop.h"
#include "base/log_limit.h"
#include "devices/net/net_port.h"
#include "devices/net/user/echo_relay.h"
#include "devices/net/user/guest_gate.h"
#include "devices/net/user/slirp_stack.h"
#include "devices/net/user_net_config.h"

namespace crosvm {

/// The network of `--net user`: no offloads, always up. What is for the guest waits in a bounded
/// queue; when that is full, frames are lost, and before that nothing more is read from outside.
class UserNetPort : public NetPort {
 public:
  static constexpr size_t kQueueBytes = size_t{4} << 20;
  static constexpr size_t kHoldBytes = size_t{1} << 20;

  /// Listens on the forwarded ports; `loop` outlives this. Errors: those of SlirpStack.
  static Result<std::unique_ptr<UserNetPort>> create(EventLoop& loop, const UserNetConfig& config,
                                                     FlowLedger::Limits limits = {});
  ~UserNetPort() override;

  void begin(Events events) override { events_ = std::move(events); }
  uint64_t offloads() const override { return 0; }
  void set_guest_offloads(uint64_t) override {}
  void listen(bool on) override;
  std::optional<size_t> receive(const ChainBuffers& room) override;
  Sent send(const NetHeader& header, const ChainBuffers& packet) override;

  const FlowLedger& flows() const { return stack_->flows(); }

 private:
  UserNetPort(EventLoop& loop, const UserNetConfig& config);
  void take(std::span<uint8_t> frame);
  void give(std::span<const uint8_t> frame);
  void deny(std::span<const uint8_t> frame, const IpFrame& ip, bool full);
  void wake();

  EventLoop& loop_;
  const UserNetConfig config_;
  GuestGate gate_;
  EchoRelay echo_;
  std::unique_ptr<SlirpStack> stack_;
  Events events_;
  std::vector<uint8_t> taken_;  // the frame at hand
  std::deque<std::vector<uint8_t>> queue_;
  size_t queued_bytes_ = 0;
  bool listening_ = false;
  bool waking_ = false;
  LogLimit denied_{"connections that the policy of the user network denies", 5};
  LogLimit limit_{"frames that the user network refuses"};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace crosvm
