#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/log_limit.h"
#include "devices/net/net_filter.h"
#include "devices/net/net_port.h"
#include "devices/net/signal_pace.h"
#include "devices/queue_turns.h"

namespace crosvm {

/// One receiveq of a network card: packets of a port go into the driver's buffers (virtio 1.3
/// §5.1.6.3, §5.1.6.4).
///
/// A packet is received straight into the chains that are held for it, as many as the former packet
/// took, and what they have no room for into memory of ours, from where it is copied. Chains that
/// were not used are held for the next packet; when the queue stops they have not been popped.
class NetReceiver {
 public:
  /// All outlive this.
  NetReceiver(EventLoop& loop, DeviceEvents& events, NetPort& port);
  ~NetReceiver();

  /// Takes the queue of a driver that acknowledged `features`. Errors: those of Virtqueue::listen.
  Result<void> start(Virtqueue queue, uint64_t features);
  RingPosition stop();
  /// The port has a packet.
  void receivable() { turns_.run(); }
  void set_filter(const NetFilter& filter) { filter_ = filter; }

 private:
  using Turn = QueueTurns::Turn;
  Result<Turn> serve();
  Result<bool> take_packet();
  Result<bool> hold(size_t chains);
  Result<bool> hold_one();
  void lay_out_room();
  Result<bool> deliver();
  Result<bool> find_room();
  Result<void> hand_over();
  Result<bool> is_wanted() const;
  void wait_for_chains();
  void drop(const char* why);
  void undo_held();
  void cancel_timer();

  EventLoop& loop_;
  NetPort& port_;
  LogLimit limit_{"packets for the guest that were dropped"};
  NetFilter filter_;
  bool mergeable_ = false;  // a packet may take several chains
  uint64_t features_ = 0;   // negotiated

  std::vector<DescriptorChain> held_;  // popped, and not given back, oldest first
  uint64_t held_bytes_ = 0;            // room in them
  size_t hint_ = 1;                    // chains that the last packet took
  std::vector<GuestSlice> room_;       // of the packet at hand: in chains, then in spill_
  uint64_t in_chains_ = 0;             // bytes of room_ that are in chains
  size_t packet_ = 0;                  // bytes received and not delivered, header included; 0: none
  std::vector<std::byte> spill_;
  std::vector<UsedChain> used_;     // kept for its capacity
  std::vector<GuestSlice> slices_;  // likewise
  EventLoop::TimerId timer_ = 0;    // while a packet waits for more chains
  SignalPace pace_;
  QueueTurns turns_;
};

}  // namespace crosvm
