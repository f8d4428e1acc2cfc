#pragma once

#include <poll.h>
#include <slirp/libslirp.h>

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/log_limit.h"
#include "devices/net/user/dhcp_clients.h"
#include "devices/net/user/slirp_stack.h"

namespace crosvm {

/// What the library calls back, and what it has told us to watch.
struct SlirpStack::State {
  using Clock = EventLoop::Clock;
  using Ends = FlowLedger::Ends;
  using Socket = FlowLedger::Socket;

  /// A descriptor of the library's in the loop.
  struct Watch {
    EventLoop::WatchId id = 0;
    short events = 0;
    uint64_t turn = 0;              // in which it was last asked for
    std::optional<size_t> listens;  // the forwarded port of TCP that it is
  };
  /// What the library has asked of a descriptor.
  struct Asked {
    short events = 0;
    std::optional<size_t> listens;
  };
  struct Timer {
    State& state;
    SlirpTimerCb call;
    void* argument;
    EventLoop::TimerId id = 0;
  };

  EventLoop& loop;
  const UserNetConfig& config;
  ToGuest to_guest;
  FlowLedger ledger;
  std::vector<Socket> targets;  // of the forwarded ports
  Slirp* slirp = nullptr;
  std::unordered_map<int, Watch> watches;
  std::vector<pollfd> polled;  // as of the last turn
  std::vector<Asked> asked;    // of each
  uint64_t turn = 0;
  EventLoop::TimerId timer = 0;
  Clock::time_point time_told{};
  Clock::duration leap{};  // by which the library's next time is ahead
  bool held = false;
  bool answered = false;  // a frame went to the guest
  DhcpClients dhcp;
  bool refresh_due = false;
  // What the next descriptor is for: of the frame that is being taken, or of the forwarded port.
  std::optional<Socket> udp_at_hand;
  bool asks_resolver = false;  // it does, and its descriptor is a new one
  std::optional<Ends> tcp_at_hand;
  std::optional<size_t> listener_at_hand;
  // Who really resolves names, and the sockets that hear from nobody else: the library gives to
  // whatever comes to them the address that the guest has asked.
  std::optional<IpAddress> resolvers[2];  // of IPv4 and IPv6
  std::unordered_set<int> of_resolver;
  // Forwarded ports. They wait for so long when no connection can be taken, and it is looked as
  // often whether an idle one stands in the way of those that wait.
  static constexpr std::chrono::seconds kPause{1};
  std::vector<std::pair<int, size_t>> listeners;           // of TCP
  std::vector<std::pair<int, size_t>> datagram_listeners;  // of UDP
  size_t accepts_told = 0;
  size_t accepts_done = 0;
  bool accepts_fail = false;
  Clock::time_point accept_again{};
  Clock::time_point relieve_again{};
  Clock::time_point expired_at{};  // when sockets for datagrams last made room
  LogLimit limit{"messages about the guest's network"};
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);

  State(EventLoop& on, const UserNetConfig& what, ToGuest to, FlowLedger::Limits limits)
      : loop(on), config(what), to_guest(std::move(to)), ledger(limits) {}
  ~State() {
    if (slirp) ::slirp_cleanup(slirp);
    for (auto& [fd, watch] : watches) loop.unwatch(watch.id);
    if (timer != 0) loop.cancel(timer);
  }

  static const SlirpCb* callbacks();
  Result<void> start();
  Result<void> forward(const PortForward& forward, const IpAddress& target);
  void tell_time();
  void take_turn();
  int want(int fd, int events);
  void watch(int fd, Watch& watch, short events);
  void refresh();
  void refresh_soon();
  void serve();
  int found(int index);

  void give(std::span<const uint8_t> frame);
  bool is_wanted(const IpFrame& ip);
  void opened(int fd);
  std::optional<size_t> listens(int fd);
  bool may_accept(size_t forward) const;
  void relieve();
  bool make_room();
  void end(const std::vector<int>& connections);
  void expire_datagrams();
  bool is_forwarded_udp(const Socket& guest) const;
  bool has_outlet(const Socket& guest) const;
  bool begin_or_follow_tcp(std::span<const uint8_t> frame, const GuestGate::Judgement& judgement,
                           bool& lost);
  bool begin_or_follow_udp(const IpFrame& ip, bool& lost);
  void bind_to_resolver(const IpFrame& ip);
  void free_of_resolver(int fd);
};

}  // namespace crosvm
