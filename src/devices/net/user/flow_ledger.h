#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "devices/net/user/guest_frame.h"

namespace crosvm {

/// The sockets that a guest, and who connects to its forwarded ports, have made us open: how many
/// there may be, so that nobody takes all descriptors or all memory, and which of them has been
/// silent longest when there is no room for another. A connection has buffers of 256 KiB.
///
/// It follows the connections by their frames, both ways, to know what the library knows of them.
class FlowLedger {
 public:
  using Clock = std::chrono::steady_clock;
  using Socket = std::pair<IpAddress, uint16_t>;
  struct Limits {
    size_t tcp = 512;          ///< connections, in and out
    size_t inbound = 384;      ///< of these, by forwarded ports
    size_t per_forward = 256;  ///< of these, by one of them
    size_t udp = 512;          ///< the guest's sockets for datagrams
    /// Segments of TCP behind a gap, which the library keeps until that is filled: of one
    /// connection, and of all.
    size_t early = 256;
    size_t all_early = 8192;
    /// A connection is given up for another one when the guest has been silent for so long; sooner
    /// one that is half open.
    std::chrono::milliseconds silence = std::chrono::minutes(5);
    std::chrono::milliseconds half_silence = std::chrono::seconds(10);
  };
  /// The two ends of a flow as the guest has them.
  struct Ends {
    Socket guest;
    Socket other;
    static Ends from_guest(const IpFrame& ip) {
      return {{ip.source, ip.source_port}, {ip.destination, ip.destination_port}};
    }
    static Ends to_guest(const IpFrame& ip) {
      return {{ip.destination, ip.destination_port}, {ip.source, ip.source_port}};
    }
    friend bool operator==(const Ends&, const Ends&) = default;
  };
  struct Connection {
    Ends ends;
    std::optional<size_t> forward;  ///< the forwarded port that it came by
    Clock::time_point used{};       ///< when the guest last sent, or else began
    bool asked = false;             ///< the library has sent its SYN or SYN|ACK
    bool answered = false;          ///< and the guest has answered it
    bool ended = false;             ///< one side has said all
    uint32_t first = 0;             ///< the number of the library's SYN
    bool follows = false;           ///< `taken` is known
    uint32_t taken = 0;             ///< up to where the library has what the guest sends
    uint32_t reached = 0;           ///< up to where the guest has sent
    size_t early = 0;               ///< segments sent behind a gap since there was none
  };
  /// The library closes a socket for datagrams that has been silent for so long.
  static constexpr std::chrono::seconds kDatagramSilence = std::chrono::minutes(4);
  static constexpr size_t kMostPeers = 8192;  ///< with whom the guest exchanges datagrams

  FlowLedger() = default;
  explicit FlowLedger(Limits limits) : limits_(limits) {}

  // ---- connections

  /// Whether there is room for another connection of the guest.
  bool admits_tcp() const { return connections_.size() < limits_.tcp; }
  /// Whether there is room for another one to this forwarded port.
  bool admits_forward(size_t forward) const {
    return admits_tcp() && inbound_ < limits_.inbound && by(forward) < limits_.per_forward;
  }
  bool has(const Ends& ends) const { return by_ends_.contains(ends); }
  void opened_tcp(int fd, const Ends& ends, std::optional<size_t> forward,
                  Clock::time_point now = Clock::now());
  /// Follows the connection of a segment of the guest, if there is one. Returns whether the library
  /// may have it: no, when it has kept too many behind a gap already.
  bool takes_segment(std::span<const uint8_t> frame, const IpFrame& ip,
                     Clock::time_point now = Clock::now());
  /// Follows the connection of a segment for the guest, if there is one.
  void note_segment(std::span<const uint8_t> frame, const IpFrame& ip);
  /// The descriptors of the connections that can best be given up for another one (to `forward`, or
  /// of the guest), `most` at most: those that are half open first, then those that have been
  /// silent longest.
  std::vector<int> idlest(std::optional<size_t> forward, size_t most,
                          Clock::time_point now = Clock::now()) const;
  /// Nothing: there is no such connection. It outlives no change of the ledger.
  const Connection* connection(int fd) const {
    const auto found = connections_.find(fd);
    return found == connections_.end() ? nullptr : &found->second;
  }

  // ---- datagrams

  /// Whether this socket of the guest has one already, or there is room for it.
  bool admits_udp(const Socket& guest) const {
    return udp_.contains(guest) || udp_.size() < limits_.udp;
  }
  void opened_udp(int fd, const Socket& guest, Clock::time_point now = Clock::now());
  /// The descriptor for datagrams of this socket of the guest; -1: none.
  int udp_fd(const Socket& guest) const;
  /// The guest sends to `ends.other`.
  void note_datagram(const Ends& ends, Clock::time_point now = Clock::now());
  /// Whether the guest hears from `ends.other`: when it has sent there itself, or been heard from
  /// there, no longer ago than a socket lives.
  bool hears(const Ends& ends, Clock::time_point now = Clock::now());
  /// How long those that have been silent longest, one in `share` of all, have been silent at
  /// least.
  Clock::duration udp_silence(size_t share, Clock::time_point now = Clock::now()) const;

  void closed(int fd);
  bool has(int fd) const { return connections_.contains(fd) || udp_of_.contains(fd); }
  size_t tcp() const { return connections_.size(); }
  size_t udp() const { return udp_.size(); }

 private:
  struct Datagrams {
    int fd = -1;
    Clock::time_point used{};
  };
  struct Hash {
    size_t operator()(const Socket& socket) const;
    size_t operator()(const Ends& ends) const;
  };
  size_t by(size_t forward) const {
    const auto found = by_forward_.find(forward);
    return found == by_forward_.end() ? 0 : found->second;
  }
  Connection* find(const Ends& ends);
  void forget_peers(Clock::time_point now);

  Limits limits_;
  std::unordered_map<int, Connection> connections_;  // by descriptor
  std::unordered_map<Ends, int, Hash> by_ends_;
  std::unordered_map<size_t, size_t> by_forward_;
  size_t inbound_ = 0;
  size_t early_ = 0;
  std::unordered_map<Socket, Datagrams, Hash> udp_;
  std::unordered_map<int, Socket> udp_of_;  // by descriptor
  std::unordered_map<Ends, Clock::time_point, Hash> peers_;
};

}  // namespace crosvm
