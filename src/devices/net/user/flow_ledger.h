#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>

#include "devices/net/ip_address.h"

namespace crosvm {

/// The sockets that a guest has made us open: how many there may be, so that it takes neither all
/// descriptors nor all memory. A socket of TCP has buffers of 256 KiB.
class FlowLedger {
 public:
  using Socket = std::pair<IpAddress, uint16_t>;
  struct Limits {
    size_t tcp = 512;
    size_t udp = 512;
  };

  FlowLedger() = default;
  explicit FlowLedger(Limits limits) : limits_(limits) {}

  /// Whether there is room for another connection.
  bool admits_tcp() const { return tcp_ < limits_.tcp; }
  /// Whether this socket of the guest has one already, or there is room for it.
  bool admits_udp(const Socket& guest) const {
    return udp_.contains(guest) || udp_.size() < limits_.udp;
  }

  /// The descriptor `fd` was opened: for datagrams of `guest`, or else for a connection.
  void opened(int fd, const std::optional<Socket>& guest) {
    if (!sockets_.emplace(fd, guest).second) return;
    if (guest) {
      udp_[*guest] = fd;
    } else {
      ++tcp_;
    }
  }
  void closed(int fd) {
    const auto found = sockets_.find(fd);
    if (found == sockets_.end()) return;
    if (found->second) {
      udp_.erase(*found->second);
    } else {
      --tcp_;
    }
    sockets_.erase(found);
  }
  bool has(int fd) const { return sockets_.contains(fd); }
  size_t tcp() const { return tcp_; }
  size_t udp() const { return udp_.size(); }

 private:
  Limits limits_;
  std::unordered_map<int, std::optional<Socket>> sockets_;
  std::map<Socket, int> udp_;
  size_t tcp_ = 0;
};

}  // namespace crosvm
