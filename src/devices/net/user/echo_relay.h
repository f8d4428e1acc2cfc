#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "devices/net/user/guest_frame.h"

namespace crosvm {

/// Sends the guest's pings on, and their answers back. Sockets for that need no privilege where the
/// sysctl net.ipv4.ping_group_range says so.
class EchoRelay {
 public:
  using ToGuest = std::function<void(std::span<const uint8_t> frame)>;
  static constexpr size_t kMostSockets = 32;           ///< one for each program that pings
  static constexpr std::chrono::seconds kSilence{15};  ///< after which one is closed

  /// `loop` outlives this.
  EchoRelay(EventLoop& loop, ToGuest to_guest);
  ~EchoRelay();

  /// `frame` holds the echo request `ip`. Returns whether it could be sent at all.
  bool send(std::span<const uint8_t> frame, const IpFrame& ip);
  size_t sockets() const { return pings_.size(); }

 private:
  using Key = std::pair<IpAddress, uint16_t>;  // the guest's address and identifier
  struct Ping {
    Fd socket;
    EventLoop::WatchId watch = 0;
    EventLoop::Clock::time_point used{};
    std::vector<uint8_t> ethernet;  // the guest's header
  };
  Result<Ping*> ping_for(const Key& key);
  void close(std::map<Key, Ping>::iterator at);
  void close_silent();
  void answer(const Key& key);

  EventLoop& loop_;
  ToGuest to_guest_;
  std::map<Key, Ping> pings_;
  EventLoop::TimerId timer_ = 0;
  bool complained_ = false;
};

/// Whether this user may open sockets for pings; asked by opening one.
bool may_ping();

}  // namespace crosvm
