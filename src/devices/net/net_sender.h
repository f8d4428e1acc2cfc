#pragma once

#include <cstdint>
#include <vector>

#include "base/log_limit.h"
#include "devices/net/net_port.h"
#include "devices/net/signal_pace.h"
#include "devices/queue_turns.h"

namespace crosvm {

/// One transmitq of a network card: the driver's packets go to a port (virtio 1.3 §5.1.6.2).
class NetSender {
 public:
  /// All outlive this.
  NetSender(EventLoop& loop, DeviceEvents& events, NetPort& port);

  /// Takes the queue; `features` are the negotiated ones. Errors: those of Virtqueue::listen.
  Result<void> start(Virtqueue queue, uint64_t features);
  RingPosition stop() { return turns_.running() ? turns_.stop() : RingPosition(); }
  /// The port takes packets again.
  void sendable() { turns_.run(); }

 private:
  using Turn = QueueTurns::Turn;
  Result<Turn> serve();
  NetPort::Sent send(const DescriptorChain& chain);
  void refuse(const std::string& why);

  NetPort& port_;
  LogLimit limit_{"packets of the guest that were refused"};
  uint64_t features_ = 0;
  std::vector<GuestSlice> packet_;  // kept for its capacity
  SignalPace pace_;
  QueueTurns turns_;
};

}  // namespace crosvm
