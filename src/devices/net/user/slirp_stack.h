#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/event_loop.h"
#include "base/result.h"
#include "devices/net/user/flow_ledger.h"
#include "devices/net/user/guest_gate.h"
#include "devices/net/user_net_config.h"

namespace crosvm {

/// libslirp on an event loop: the other end of the guest's connections, which become sockets of
/// this process. It is given only what a GuestGate lets pass.
class SlirpStack {
 public:
  using ToGuest = std::function<void(std::span<const uint8_t> frame)>;

  /// Opens the forwarded ports. `loop` and `config` outlive this; `to_guest` must not call back.
  /// Errors: those of binding a port, which they name.
  static Result<std::unique_ptr<SlirpStack>> create(EventLoop& loop, const UserNetConfig& config,
                                                    FlowLedger::Limits limits, ToGuest to_guest);
  ~SlirpStack();
  SlirpStack(const SlirpStack&) = delete;
  SlirpStack& operator=(const SlirpStack&) = delete;

  /// Takes a frame of the guest. Returns whether there was room for the flow that it begins.
  bool input(std::span<const uint8_t> frame, const GuestGate::Judgement& judgement);
  /// Whether nothing is to be read from outside at present.
  void hold(bool held);
  const FlowLedger& flows() const;

 private:
  struct State;
  explicit SlirpStack(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
