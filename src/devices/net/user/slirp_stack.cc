#include "devices/net/user/slirp_stack.h"

#include <netinet/in.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/format.h"
#include "base/log.h"
#include "base/log_limit.h"
#include "devices/net/user/dhcp_clients.h"
#include "devices/net/user/guest_address.h"

namespace crosvm {
namespace {

using Clock = EventLoop::Clock;

/// Connections to a forwarded port that may wait to be taken; the library asks for one.
constexpr int kBacklog = 128;

/// The library takes the time of its last turn for the present one.
constexpr std::chrono::milliseconds kOldTime{100};

constexpr std::pair<int, short> kPollBits[] = {{SLIRP_POLL_IN, POLLIN},
                                               {SLIRP_POLL_OUT, POLLOUT},
                                               {SLIRP_POLL_PRI, POLLPRI},
                                               {SLIRP_POLL_ERR, POLLERR},
                                               {SLIRP_POLL_HUP, POLLHUP}};

short to_poll(int events) {
  int bits = 0;
  for (auto [theirs, ours] : kPollBits) bits |= (events & theirs) != 0 ? ours : 0;
  return static_cast<short>(bits);
}
int from_poll(short events) {
  int bits = 0;
  for (auto [theirs, ours] : kPollBits) bits |= (events & ours) != 0 ? theirs : 0;
  return bits;
}

/// What the library is told of a socket. It reads where it is told of an error, and stops the
/// process when it has no room to read into, which is when it did not ask to read: the write that
/// it asked for then finds the error.
int answer(short asked, short found) {
  if ((asked & POLLIN) != 0) return from_poll(found);
  return (found & (POLLOUT | POLLERR | POLLHUP)) != 0 ? SLIRP_POLL_OUT : 0;
}

in_addr to_in_addr(const IpAddress& address) {
  in_addr to;
  std::memcpy(&to, address.bytes.data(), sizeof(to));
  return to;
}
in6_addr to_in6_addr(const IpAddress& address) {
  in6_addr to;
  std::memcpy(&to, address.bytes.data(), sizeof(to));
  return to;
}

/// For calls of sockets.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  SocketAddress(const IpAddress& address, uint16_t port) {
    if (address.v6) {
      auto* to = reinterpret_cast<sockaddr_in6*>(&storage);
      to->sin6_family = AF_INET6;
      to->sin6_addr = to_in6_addr(address);
      to->sin6_port = htons(port);
      size = sizeof(*to);
    } else {
      auto* to = reinterpret_cast<sockaddr_in*>(&storage);
      to->sin_family = AF_INET;
      to->sin_addr = to_in_addr(address);
      to->sin_port = htons(port);
      size = sizeof(*to);
    }
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

}  // namespace

/// What the library calls back, and what it has told us to watch.
struct SlirpStack::State {
  /// A descriptor of the library's in the loop.
  struct Watch {
    EventLoop::WatchId id = 0;
    short events = 0;
    uint64_t turn = 0;      // in which it was last asked for
    bool listener = false;  // a forwarded port of TCP
  };
  struct Timer {
    State& state;
    SlirpTimerCb call;
    void* argument;
    EventLoop::TimerId id = 0;
  };

  EventLoop& loop;
  ToGuest to_guest;
  FlowLedger ledger;
  Slirp* slirp = nullptr;
  std::unordered_map<int, Watch> watches;
  std::vector<pollfd> polled;  // as of the last turn
  std::vector<short> asked;    // of each, what the library asked for
  uint64_t turn = 0;
  EventLoop::TimerId timer = 0;
  Clock::time_point time_told{};
  bool held = false;
  bool answered = false;  // a frame went to the guest
  DhcpClients dhcp;
  bool refresh_due = false;
  std::optional<FlowLedger::Socket> udp_at_hand;  // of the frame that is being taken
  LogLimit limit{"messages about the guest's network"};
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);

  State(EventLoop& on, ToGuest to, FlowLedger::Limits limits)
      : loop(on), to_guest(std::move(to)), ledger(limits) {}
  ~State() {
    if (slirp) ::slirp_cleanup(slirp);
    for (auto& [fd, watch] : watches) loop.unwatch(watch.id);
    if (timer != 0) loop.cancel(timer);
  }

  static const SlirpCb* callbacks();
  Result<void> start(const UserNetConfig& config);
  Result<void> forward(const PortForward& forward, const IpAddress& target);
  void tell_time();
  void take_turn();
  int want(int fd, int events);
  void watch(int fd, Watch& watch, short events);
  void refresh();
  void refresh_soon();
  void serve();
};

const SlirpCb* SlirpStack::State::callbacks() {
  static const SlirpCb kCallbacks = [] {
    SlirpCb call{};
    call.send_packet = [](const void* frame, size_t size, void* state) -> ssize_t {
      static_cast<State*>(state)->answered = true;
      static_cast<State*>(state)->to_guest({static_cast<const uint8_t*>(frame), size});
      return static_cast<ssize_t>(size);
    };
    call.guest_error = [](const char* message, void* state) {
      if (static_cast<State*>(state)->limit.allows()) log::debug("user network: {}", message);
    };
    call.clock_get_ns = [](void*) -> int64_t {
      return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count();
    };
    call.timer_new = [](SlirpTimerCb fire, void* argument, void* state) -> void* {
      return new Timer{*static_cast<State*>(state), fire, argument};
    };
    call.timer_free = [](void* timer, void*) {
      const std::unique_ptr<Timer> freed(static_cast<Timer*>(timer));
      if (freed) freed->state.loop.cancel(freed->id);
    };
    call.timer_mod = [](void* at, int64_t expire_ms, void*) {
      auto* timer = static_cast<Timer*>(at);
      timer->state.loop.cancel(timer->id);
      timer->id = timer->state.loop.at(Clock::time_point(std::chrono::milliseconds(expire_ms)),
                                       [timer] { timer->call(timer->argument); });
    };
    call.register_poll_fd = [](int fd, void* at) {
      auto* state = static_cast<State*>(at);
      if (fd >= 0) state->ledger.opened(fd, state->udp_at_hand);
    };
    call.unregister_poll_fd = [](int fd, void* at) {
      auto* state = static_cast<State*>(at);
      state->ledger.closed(fd);
      // It is closed next: another may get its number.
      if (auto found = state->watches.find(fd); found != state->watches.end()) {
        state->loop.unwatch(found->second.id);
        state->watches.erase(found);
      }
    };
    call.notify = [](void* state) { static_cast<State*>(state)->refresh_soon(); };
    return call;
  }();
  return &kCallbacks;
}

Result<void> SlirpStack::State::start(const UserNetConfig& config) {
  const auto udp = [](const PortForward& forward) { return forward.udp; };
  SlirpConfig asked{};
  asked.version = 3;
  asked.in_enabled = true;
  asked.vnetwork = to_in_addr(config.ipv4.base);
  asked.vnetmask.s_addr = htonl(0xffffffffU << (32 - config.ipv4.prefix));
  asked.vhost = to_in_addr(config.gateway4());
  asked.vdhcp_start = to_in_addr(config.first_guest4());
  asked.vnameserver = to_in_addr(config.resolver4());
  asked.in6_enabled = true;
  asked.vprefix_addr6 = to_in6_addr(config.ipv6.base);
  asked.vprefix_len = config.ipv6.prefix;
  asked.vhost6 = to_in6_addr(config.gateway6());
  asked.vnameserver6 = to_in6_addr(config.resolver6());
  asked.if_mtu = config.mtu;
  asked.if_mru = config.mtu;
  // The gate has the word on the loopback; where nothing needs it, the library is told as well. The
  // answers of forwarded ports of UDP do.
  asked.disable_host_loopback = !EgressPolicy(config.allow, config.deny).may_reach_loopback() &&
                                std::ranges::none_of(config.forward, udp);
  slirp = ::slirp_new(&asked, callbacks(), this);
  if (!slirp) return fail(Error::invalid("libslirp refuses this configuration"));
  tell_time();
  for (const PortForward& each : config.forward) TRY(forward(each, forward_target(config, each)));
  refresh_soon();
  return {};
}

Result<void> SlirpStack::State::forward(const PortForward& forward, const IpAddress& target) {
  const SocketAddress host(*forward.host.address, forward.host.port);
  const SocketAddress guest(target, forward.guest.port);
  const int flags = (forward.udp ? SLIRP_HOSTFWD_UDP : 0) | SLIRP_HOSTFWD_V6ONLY;
  if (::slirp_add_hostxfwd(slirp, host.get(), host.size, guest.get(), guest.size, flags) == 0) {
    return {};
  }
  const int error = errno;
  const Error why = Error::from_errno("listening on", forward.host.to_text(), error);
  const std::string_view fix = error == EADDRINUSE ? "; give it another port of the host"
                               : error == EACCES
                                   ? "; ports below the sysctl net.ipv4.ip_unprivileged_port_start "
                                     "need a privilege that crosvm does not have here"
                                   : "";
  return fail(
      Error(why.code(), format_text("forward={}: {}{}", forward.to_text(), why.what(), fix)));
}

void SlirpStack::State::tell_time() {
  if (Clock::now() - time_told >= kOldTime) take_turn();
}

/// Timers, and packets that waited to learn the guest's address. As after a poll that failed: no
/// socket is looked at.
void SlirpStack::State::take_turn() {
  time_told = Clock::now();
  ::slirp_pollfds_poll(slirp, 1, [](int, void*) { return 0; }, this);
}

int SlirpStack::State::want(int fd, int events) {
  auto [place, is_new] = watches.try_emplace(fd);
  Watch& entry = place->second;
  if (is_new && !ledger.has(fd)) {
    int listens = 0;
    socklen_t size = sizeof(listens);
    entry.listener =
        ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0;
    if (entry.listener) ::listen(fd, kBacklog);
  }
  short wanted = to_poll(events);
  if (held || (entry.listener && !ledger.admits_tcp())) {
    wanted = static_cast<short>(wanted & POLLOUT);
  }
  entry.turn = turn;
  watch(fd, entry, static_cast<short>(wanted & (POLLIN | POLLOUT | POLLPRI)));
  polled.push_back({.fd = fd, .events = wanted, .revents = 0});
  asked.push_back(to_poll(events));
  return static_cast<int>(polled.size() - 1);
}

void SlirpStack::State::watch(int fd, Watch& entry, short events) {
  if (events == entry.events) return;
  // What is not asked for is not watched at all: its end would be told again and again.
  entry.events = events;
  if (events == 0) return loop.unwatch(std::exchange(entry.id, 0));
  // The same bits in both interfaces.
  static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLPRI == POLLPRI);
  const auto bits = static_cast<uint32_t>(events);
  if (entry.id != 0) {
    if (loop.set_events(entry.id, bits)) return;
    loop.unwatch(std::exchange(entry.id, 0));
  }
  Fd borrowed(fd);
  auto watched = loop.watch(borrowed, bits, [this](uint32_t) { serve(); });
  (void)borrowed.release();
  if (watched) {
    entry.id = *watched;
  } else {
    entry.events = 0;
    if (limit.allows()) log::error("user network: watching a socket: {}", watched.error().what());
  }
}

void SlirpStack::State::refresh_soon() {
  if (std::exchange(refresh_due, true)) return;
  loop.post([this, still = std::weak_ptr(alive)] {
    if (still.expired() || !refresh_due) return;
    take_turn();
    refresh();
  });
}

/// Asks the library what it waits for.
void SlirpStack::State::refresh() {
  refresh_due = false;
  ++turn;
  polled.clear();
  asked.clear();
  uint32_t wait_ms = UINT32_MAX;
  ::slirp_pollfds_fill(
      slirp, &wait_ms,
      [](int fd, int events, void* state) { return static_cast<State*>(state)->want(fd, events); },
      this);
  for (auto& [fd, entry] : watches) {
    if (entry.turn != turn) watch(fd, entry, 0);
  }
  if (timer != 0) loop.cancel(std::exchange(timer, 0));
  if (wait_ms == UINT32_MAX) return;
  timer = loop.after(std::chrono::milliseconds(wait_ms), [this] {
    timer = 0;
    serve();
  });
}

void SlirpStack::State::serve() {
  const int found = ::poll(polled.data(), polled.size(), 0);
  time_told = Clock::now();
  ::slirp_pollfds_poll(
      slirp, found < 0 ? 1 : 0,
      [](int index, void* at) {
        const auto* state = static_cast<State*>(at);
        const auto place = static_cast<size_t>(index);
        if (index < 0 || place >= state->polled.size()) return 0;
        return answer(state->asked[place], state->polled[place].revents);
      },
      this);
  refresh();
}

SlirpStack::SlirpStack(std::unique_ptr<State> state) : state_(std::move(state)) {}
SlirpStack::~SlirpStack() = default;

Result<std::unique_ptr<SlirpStack>> SlirpStack::create(EventLoop& loop, const UserNetConfig& config,
                                                       FlowLedger::Limits limits,
                                                       ToGuest to_guest) {
  auto state = std::make_unique<State>(loop, std::move(to_guest), limits);
  TRY(state->start(config));
  return std::unique_ptr<SlirpStack>(new SlirpStack(std::move(state)));
}

bool SlirpStack::input(std::span<const uint8_t> frame, const GuestGate::Judgement& judgement) {
  const IpFrame& ip = judgement.ip;
  if (judgement.begins_tcp && !state_->ledger.admits_tcp()) return false;
  if (ip.protocol == kProtocolUdp) {
    const FlowLedger::Socket guest(ip.source, ip.source_port);
    if (!state_->ledger.admits_udp(guest)) return false;
    state_->udp_at_hand = guest;
  }
  // Padding is no part of the packet, but the library would take it for data of IPv6.
  if (ip.end != 0) frame = frame.first(ip.end);
  const auto client = DhcpClients::of(frame, ip);
  if (client && !state_->dhcp.admits(*client)) return true;
  state_->tell_time();
  state_->answered = false;
  ::slirp_input(state_->slirp, frame.data(), static_cast<int>(frame.size()));
  if (client) state_->dhcp.note(*client, state_->answered);
  state_->udp_at_hand.reset();
  state_->refresh_soon();
  return true;
}

void SlirpStack::hold(bool held) {
  if (std::exchange(state_->held, held) != held) state_->refresh_soon();
}

const FlowLedger& SlirpStack::flows() const { return state_->ledger; }

}  // namespace crosvm
