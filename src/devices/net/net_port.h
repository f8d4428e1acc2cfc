#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "devices/net/net_abi.h"
#include "virtio/descriptor_chain.h"

namespace crosvm {

/// What a network card's queue pair is connected with: a queue of a tap, or whatever else takes and
/// gives Ethernet frames. A card with several pairs has a port for each, all of one network.
///
/// All calls are made on the loop that the port was made for, and its events come there. Nothing
/// here waits.
class NetPort {
 public:
  struct Events {
    /// There is a packet to receive. While the port listens it is called again and again, once in a
    /// turn of the loop, until `receive` has found none.
    std::function<void()> receivable;
    /// After `send` said kLater: it may be tried again.
    std::function<void()> sendable;
    /// The network is there, or gone. A port is up until it says otherwise.
    std::function<void(bool up)> link_changed;
  };
  enum class Sent {
    kDone,   ///< it is on its way, or lost as networks lose packets
    kLater,  ///< there is no room now; nothing was taken
  };

  virtual ~NetPort() = default;

  /// Once, before anything else. No event comes before that, and none from inside a call.
  virtual void begin(Events events) = 0;

  /// Of kNetGuestOffloads and kNetHostOffloads what it can do; always the same. A port without any
  /// is given whole packets with all checksums, and gives such.
  virtual uint64_t offloads() const = 0;
  /// Which of kNetGuestOffloads the packets that `receive` gives may make use of; none at first.
  virtual void set_guest_offloads(uint64_t features) = 0;

  /// Whether the guest uses this queue pair: else packets must go to other pairs and `receive`
  /// finds none. What is sent then was in the ring before: it goes on its way as ever, or is lost.
  /// All are used at first.
  virtual void set_used(bool /*used*/) {}

  /// Whether `receivable` is to be called; not at first.
  virtual void listen(bool on) = 0;
  /// Takes the next packet and puts it into `room`, behind a NetHeader whose num_buffers means
  /// nothing: returns the bytes of both. Of a packet that does not fit the rest is lost; nothing is
  /// lost in a room of kNetHeaderBytes + kMostPacketBytes. Nothing: there is none now. The room may
  /// be guest memory: it is written once and not read.
  virtual std::optional<size_t> receive(const ChainBuffers& room) = 0;
  /// Sends a packet. The header has been checked against the packet's size and the offloads that
  /// the driver accepted; what the packet itself says is the guest's word, and its bytes may change
  /// while they are read.
  virtual Sent send(const NetHeader& header, const ChainBuffers& packet) = 0;
};

}  // namespace crosvm
