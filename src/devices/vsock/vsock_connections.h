#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/log_limit.h"
#include "base/result.h"
#include "devices/vsock/vsock_config.h"
#include "devices/vsock/vsock_connection.h"
#include "devices/vsock/vsock_dialer.h"
#include "devices/vsock/vsock_listeners.h"
#include "devices/vsock/vsock_packet.h"
#include "virtio/descriptor_chain.h"

namespace crosvm {

/// All connections of a socket device, and what becomes of each packet. A guest may connect to the
/// ports of `config.connect`, programs of the host through the sockets of `config.listen`; all else
/// is reset. What is kept is bounded: connections, what each may have on its way, answers.
class VsockConnections {
 public:
  static constexpr size_t kMost = 1024;
  /// Answers to packets without a connection that wait for room in the ring.
  static constexpr size_t kMostReplies = 256;

  /// `packets_wait` is called, on the loop, when there may be packets for the guest that did not
  /// come of its own.
  static Result<std::unique_ptr<VsockConnections>> create(EventLoop& loop,
                                                          const VsockConfig& config, Fd dialer,
                                                          std::vector<Fd> listeners,
                                                          std::function<void()> packets_wait);
  ~VsockConnections();

  /// Whether the driver knows sequenced packets.
  void set_seqpacket(bool negotiated) { seqpacket_ = negotiated; }
  /// Programs of the host are heard while the guest can be told of them.
  void set_running(bool running) {
    running_ = running;
    update_listeners();
  }

  /// Whether there is room for another answer; else packets must wait.
  bool can_take() const { return replies_.size() < kMostReplies; }
  /// Takes a packet of the guest.
  void take_packet(const ChainBuffers& chain);
  bool has_packet() const { return !replies_.empty() || !ready_.empty(); }
  /// Writes the next packet for the guest, each connection in turn. Returns its bytes; 0: there was
  /// none, or there still is one (`has_packet`), as `room` is too small for it.
  uint32_t write_packet(const ChainBuffers& room);

  /// The guest has forgotten all connections. What it had sent still reaches the host.
  void reset();

 private:
  struct Entry {
    std::unique_ptr<VsockConnection> connection;
    uint64_t number = 0;
    bool queued = false;     // in ready_
    bool forgotten = false;  // by the guest, and out of by_ports_
    EventLoop::TimerId timer = 0;
  };

  VsockConnections(EventLoop& loop, const VsockConfig& config, std::function<void()> packets_wait);
  Entry* find(VsockPorts ports);
  Entry* find(uint64_t number);
  bool is_full() const { return entries_.size() >= kMost; }
  /// One that the host has closed and the guest does not let go of; null: there is none.
  Entry* find_over();
  /// Room for one more, perhaps in place of one that is over.
  bool make_room();
  void update_listeners();
  Entry& add(VsockPorts ports, bool seqpacket, bool from_host);
  void begin(const VsockHeader& header);
  void dialed(uint64_t number, Result<Fd> socket);
  /// Takes a connection that a program of the host has made to `rule`. Returns whether it could.
  void accepted(const VsockRule& rule, Fd socket);
  std::optional<VsockPorts> free_ports(uint32_t guest_port);
  void socket_ready(uint64_t number, uint32_t events);
  void start(Entry& entry, Fd socket);
  void after_change(Entry& entry);

  /// Ends a connection, telling the guest; `why` is for the log.
  void reset(Entry& entry, std::string_view why);
  /// The guest is done with it, or has forgotten it: what it sent may still be on its way.
  void let_go(Entry& entry);
  void remove(uint64_t number);
  /// Answers a packet that belongs to no connection.
  void refuse(const VsockHeader& header);
  void enqueue(Entry& entry);

  EventLoop& loop_;
  VsockConfig config_;
  std::function<void()> packets_wait_;
  bool seqpacket_ = false;
  bool running_ = false;
  std::unique_ptr<VsockDialer> dialer_;
  std::unique_ptr<VsockListeners> listeners_;

  std::unordered_map<uint64_t, Entry> entries_;      // by number
  std::unordered_map<uint64_t, uint64_t> by_ports_;  // the number by VsockPorts::key
  uint64_t next_number_ = 1;
  uint32_t next_port_;
  uint64_t promised_ = 0;       // bytes that guests may have on their way, all connections together
  std::deque<uint64_t> ready_;  // numbers, in turn; some may be gone
  std::deque<VsockHeader> replies_;
  VsockStaging staging_;
  LogLimit log_limit_{"complaints about vsock packets", 5};
};

}  // namespace crosvm
