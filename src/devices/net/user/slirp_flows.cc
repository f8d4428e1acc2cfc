// The flows of a SlirpStack: what its descriptors are for, and who makes room for whom.

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <variant>

#include "devices/net/user/own_frames.h"
#include "devices/net/user/slirp_abi.h"
#include "devices/net/user/slirp_state.h"

namespace crosvm {
namespace {

/// Connections to a forwarded port that may wait to be taken; the library asks for one.
constexpr int kBacklog = 128;

/// Idle connections that are ended at once for those who wait at a forwarded port.
constexpr size_t kMostEnded = 16;

constexpr uint16_t kDnsPort = 53;
constexpr uint16_t kDhcpClientPort = 68;
constexpr uint16_t kDhcpv6ClientPort = 546;

}  // namespace

/// A frame of the library for the guest.
void SlirpStack::State::give(std::span<const uint8_t> frame) {
  answered = true;
  const GuestFrame read = read_guest_frame(frame);
  if (const auto* ip = std::get_if<IpFrame>(&read)) {
    if (ip->protocol == kProtocolTcp) ledger.note_segment(frame, *ip);
    if (ip->protocol == kProtocolUdp && !is_wanted(*ip)) return;
  }
  to_guest(frame);
}

/// The library's sockets for datagrams take what anybody sends to them.
bool SlirpStack::State::is_wanted(const IpFrame& ip) {
  const Ends ends = Ends::to_guest(ip);
  if (ip.destination_port == kDhcpClientPort && ip.source == config.gateway4()) return true;
  if (ip.destination_port == kDhcpv6ClientPort && ip.source == config.gateway6()) return true;
  return is_forwarded_udp(ends.guest) || ledger.hears(ends);
}

bool SlirpStack::State::is_forwarded_udp(const Socket& guest) const {
  for (size_t i = 0; i < targets.size(); ++i) {
    if (config.forward[i].udp && targets[i] == guest) return true;
  }
  return false;
}

/// The library has a new descriptor.
void SlirpStack::State::opened(int fd) {
  if (udp_at_hand) return ledger.opened_udp(fd, *udp_at_hand);
  if (tcp_at_hand) return ledger.opened_tcp(fd, *tcp_at_hand, std::nullopt);
  if (!listener_at_hand) return;
  ++accepts_done;
  const Socket& guest = targets[*listener_at_hand];
  Socket client = address_of(fd, ::getpeername).value_or(Socket{});
  // As the library does.
  if (client.first.is_loopback()) {
    client.first = client.first.v6 ? config.gateway6() : config.gateway4();
  }
  ledger.opened_tcp(fd, {guest, client}, listener_at_hand);
}

/// The forwarded port of TCP that this is; it is made ready to be one. Nothing: one of UDP.
std::optional<size_t> SlirpStack::State::listens(int fd) {
  int accepts = 0;
  socklen_t size = sizeof(accepts);
  const bool tcp =
      ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) == 0 && accepts != 0;
  const auto bound = address_of(fd, ::getsockname);
  const auto known = std::ranges::find_if(config.forward, [&](const PortForward& each) {
    return each.udp != tcp && bound && each.host.address == bound->first &&
           each.host.port == bound->second;
  });
  if (known == config.forward.end()) return std::nullopt;
  const auto index = static_cast<size_t>(known - config.forward.begin());
  (tcp ? listeners : datagram_listeners).emplace_back(fd, index);
  if (!tcp) return std::nullopt;
  ::listen(fd, kBacklog);
  // Who waited may have gone.
  (void)::fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
  return index;
}

bool SlirpStack::State::may_accept(size_t forward) const {
  return ledger.admits_forward(forward) && Clock::now() >= accept_again;
}

/// Where somebody waits at a forwarded port that has its fill, idle connections make room.
void SlirpStack::State::relieve() {
  const auto now = Clock::now();
  if (now < relieve_again) return;
  relieve_again = now + kPause;
  for (auto [fd, forward] : listeners) {
    if (ledger.admits_forward(forward)) continue;
    pollfd waits{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&waits, 1, 0) != 1) continue;
    end(ledger.idlest(forward, kMostEnded));
  }
}

/// Returns whether there is room for another connection of the guest; one that is idle is ended for
/// it.
bool SlirpStack::State::make_room() {
  if (ledger.admits_tcp()) return true;
  end(ledger.idlest(std::nullopt, 1));
  return ledger.admits_tcp();
}

void SlirpStack::State::end(const std::vector<int>& connections) {
  bool shut_down = false;
  for (const int fd : connections) {
    const FlowLedger::Connection* found = ledger.connection(fd);
    if (!found) continue;
    const FlowLedger::Connection connection = *found;
    if (!connection.asked) {
      // The library hears nothing of the guest while it connects.
      ::shutdown(fd, SHUT_RDWR);
      shut_down = true;
      continue;
    }
    // As if the guest had reset it, be it established or not answered by the guest yet.
    const auto reset = connection.follows
                           ? reset_frame(connection.ends, connection.taken, std::nullopt)
                           : reset_frame(connection.ends, 0, connection.first + 1);
    ::slirp_input(slirp, reset.data(), static_cast<int>(reset.size()));
  }
  if (shut_down) serve();  // last, as it may give the descriptors to new connections
}

/// The library closes sockets for datagrams that have been silent for long: for the moment of a
/// turn it is later, so that those go that have been silent longest. Its timers of TCP tick with
/// each leap: of a guest that asks for many sockets more go at once.
void SlirpStack::State::expire_datagrams() {
  constexpr std::chrono::milliseconds kTick{1};  // of the library's time
  const auto now = Clock::now();
  const bool often = now - std::exchange(expired_at, now) < std::chrono::seconds(1);
  leap = FlowLedger::kDatagramSilence - ledger.udp_silence(often ? 2 : 8, now) + kTick;
  take_turn();
  refresh();
  take_turn();
}

/// Whether a datagram can be sent without waiting for a slow network.
bool SlirpStack::State::has_outlet(const Socket& guest) const {
  const auto is_free = [](int fd) {
    pollfd outlet{.fd = fd, .events = POLLOUT, .revents = 0};
    return ::poll(&outlet, 1, 0) < 0 || (outlet.revents & POLLOUT) != 0;
  };
  if (const int fd = ledger.udp_fd(guest); fd >= 0) return is_free(fd);
  return std::ranges::all_of(datagram_listeners, [&](const auto& each) {
    return targets[each.second] != guest || is_free(each.first);
  });
}

/// Returns whether there is room for its connection. `lost`: the frame goes no further.
bool SlirpStack::State::begin_or_follow_tcp(std::span<const uint8_t> frame,
                                            const GuestGate::Judgement& judgement, bool& lost) {
  const Ends ends = Ends::from_guest(judgement.ip);
  if (!judgement.begins_tcp) {
    lost = !ledger.takes_segment(frame, judgement.ip);
    return true;
  }
  if (!ledger.has(ends) && !make_room()) return false;
  // Also of one that is known: the library lets it begin anew when both sides have said all.
  tcp_at_hand = ends;
  return true;
}

bool SlirpStack::State::begin_or_follow_udp(const IpFrame& ip, bool& lost) {
  const Ends ends = Ends::from_guest(ip);
  if (!is_forwarded_udp(ends.guest)) {
    if (!ledger.admits_udp(ends.guest)) expire_datagrams();
    if (!ledger.admits_udp(ends.guest)) return false;
    udp_at_hand = ends.guest;
    const int fd = ledger.udp_fd(ends.guest);
    const bool resolver =
        ip.destination_port == kDnsPort &&
        (ip.destination == config.resolver4() || ip.destination == config.resolver6());
    asks_resolver = resolver && fd < 0;
    if (!resolver) free_of_resolver(fd);
  }
  lost = !has_outlet(ends.guest);
  ledger.note_datagram(ends);
  return true;
}

/// A socket that asks for a name hears from the resolver alone, whatever the guest knows it as.
void SlirpStack::State::bind_to_resolver(const IpFrame& ip) {
  const int fd = ledger.udp_fd({ip.source, ip.source_port});
  const auto& resolver = resolvers[ip.source.v6 ? 1 : 0];
  if (!std::exchange(asks_resolver, false) || fd < 0 || !resolver) return;
  const SlirpAddress to(*resolver, kDnsPort);
  if (::connect(fd, to.get(), to.size) == 0) of_resolver.insert(fd);
}

/// Until the guest uses it for something else.
void SlirpStack::State::free_of_resolver(int fd) {
  if (of_resolver.erase(fd) == 0) return;
  const sockaddr nobody{.sa_family = AF_UNSPEC, .sa_data = {}};
  (void)::connect(fd, &nobody, sizeof(nobody));
}

}  // namespace crosvm
