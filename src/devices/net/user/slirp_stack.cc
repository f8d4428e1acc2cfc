#include "devices/net/user/slirp_stack.h"

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
#include "devices/net/user/guest_address.h"
#include "devices/net/user/host_resolver.h"
#include "devices/net/user/slirp_abi.h"
#include "devices/net/user/slirp_state.h"

namespace crosvm {
namespace {

/// The library takes the time of its last turn for the present one.
constexpr std::chrono::milliseconds kOldTime{10};

/// What the library may keep of segments behind gaps. Each is in a buffer for a whole packet.
constexpr size_t kEarlyBytes = size_t{32} << 20;
constexpr size_t kBufferBytes = 512;  // of such a buffer, beside the packet

}  // namespace

const SlirpCb* SlirpStack::State::callbacks() {
  static const SlirpCb kCallbacks = [] {
    SlirpCb call{};
    call.send_packet = [](const void* frame, size_t size, void* state) -> ssize_t {
      static_cast<State*>(state)->give({static_cast<const uint8_t*>(frame), size});
      return static_cast<ssize_t>(size);
    };
    call.guest_error = [](const char* message, void* state) {
      if (static_cast<State*>(state)->limit.allows()) log::debug("user network: {}", message);
    };
    call.clock_get_ns = [](void* at) -> int64_t {
      const auto ahead = std::exchange(static_cast<State*>(at)->leap, {});
      return std::chrono::nanoseconds((Clock::now() + ahead).time_since_epoch()).count();
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
      if (fd >= 0) static_cast<State*>(at)->opened(fd);
    };
    call.unregister_poll_fd = [](int fd, void* at) {
      auto* state = static_cast<State*>(at);
      state->ledger.closed(fd);
      state->of_resolver.erase(fd);
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

Result<void> SlirpStack::State::start() {
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
  const std::string names = read_resolv_conf();
  for (const bool v6 : {false, true}) resolvers[v6 ? 1 : 0] = resolver_in(names, v6);
  for (const PortForward& each : config.forward) {
    const IpAddress target = forward_target(config, each);
    targets.emplace_back(target, each.guest.port);
    TRY(forward(each, target));
  }
  refresh_soon();
  return {};
}

Result<void> SlirpStack::State::forward(const PortForward& forward, const IpAddress& target) {
  const SlirpAddress host(*forward.host.address, forward.host.port);
  const SlirpAddress guest(target, forward.guest.port);
  const int flags = (forward.udp ? SLIRP_HOSTFWD_UDP : 0) | SLIRP_HOSTFWD_V6ONLY;
  if (::slirp_add_hostxfwd(slirp, host.get(), host.size, guest.get(), guest.size, flags) == 0) {
    return {};
  }
  const int error = errno;
  const Error why = Error::from_errno("listening on", forward.host.to_text(), error);
  const std::string_view fix =
      error == EADDRINUSE      ? "; give it another port of the host"
      : error == EADDRNOTAVAIL ? "; this host has no such address: give one of its own, or none "
                                 "for its loopback"
      : error == EACCES        ? "; ports below the sysctl net.ipv4.ip_unprivileged_port_start "
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
  if (is_new && !ledger.has(fd)) entry.listens = listens(fd);
  const short all = to_poll(events);
  short wanted = all;
  if (held || (entry.listens && !may_accept(*entry.listens))) {
    wanted = static_cast<short>(wanted & POLLOUT);
  }
  entry.turn = turn;
  watch(fd, entry, static_cast<short>(wanted & (POLLIN | POLLOUT | POLLPRI)));
  polled.push_back({.fd = fd, .events = wanted, .revents = 0});
  asked.push_back({.events = all, .listens = entry.listens});
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
  relieve();
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
  const int ready = ::poll(polled.data(), polled.size(), 0);
  time_told = Clock::now();
  accepts_told = accepts_done = 0;
  ::slirp_pollfds_poll(
      slirp, ready < 0 ? 1 : 0,
      [](int index, void* state) { return static_cast<State*>(state)->found(index); }, this);
  listener_at_hand.reset();
  if (accepts_done < accepts_told) {
    // It would be asked again and again.
    accept_again = time_told + kPause;
    if (!std::exchange(accepts_fail, true)) {
      log::warn(
          "user network: connections to forwarded ports cannot be taken, for want of descriptors "
          "(ulimit -Hn) or memory; it is tried again every second");
    }
  } else if (accepts_told > 0) {
    accepts_fail = false;
  }
  refresh();
}

int SlirpStack::State::found(int index) {
  const auto place = static_cast<size_t>(index);
  if (index < 0 || place >= polled.size()) return 0;
  const Asked& what = asked[place];
  if (what.listens) {
    if ((polled[place].revents & POLLIN) == 0 || !may_accept(*what.listens)) return 0;
    listener_at_hand = what.listens;
    ++accepts_told;
  }
  return answer(what.events, polled[place].revents);
}

SlirpStack::SlirpStack(std::unique_ptr<State> state) : state_(std::move(state)) {}
SlirpStack::~SlirpStack() = default;

Result<std::unique_ptr<SlirpStack>> SlirpStack::create(EventLoop& loop, const UserNetConfig& config,
                                                       FlowLedger::Limits limits,
                                                       ToGuest to_guest) {
  limits.all_early = std::min(limits.all_early, kEarlyBytes / (config.mtu + kBufferBytes));
  auto state = std::make_unique<State>(loop, config, std::move(to_guest), limits);
  TRY(state->start());
  return std::unique_ptr<SlirpStack>(new SlirpStack(std::move(state)));
}

bool SlirpStack::input(std::span<const uint8_t> frame, const GuestGate::Judgement& judgement) {
  const IpFrame& ip = judgement.ip;
  bool lost = false;
  if (ip.protocol == kProtocolTcp) {
    if (!state_->begin_or_follow_tcp(frame, judgement, lost)) return false;
  } else if (ip.protocol == kProtocolUdp && !judgement.asks_for_address) {
    if (!state_->begin_or_follow_udp(ip, lost)) return false;
  }
  const auto client = judgement.asks_for_address ? DhcpClients::of(frame, ip) : std::nullopt;
  if (lost || (client && !state_->dhcp.admits(*client))) {
    state_->udp_at_hand.reset();
    return true;
  }
  // Padding is no part of the packet, but the library would take it for data of IPv6.
  if (ip.end != 0) frame = frame.first(ip.end);
  state_->tell_time();
  state_->answered = false;
  ::slirp_input(state_->slirp, frame.data(), static_cast<int>(frame.size()));
  if (client) state_->dhcp.note(*client, state_->answered);
  if (state_->udp_at_hand) state_->bind_to_resolver(ip);
  state_->udp_at_hand.reset();
  state_->tcp_at_hand.reset();
  state_->refresh_soon();
  return true;
}

void SlirpStack::hold(bool held) {
  if (std::exchange(state_->held, held) != held) state_->refresh_soon();
}

const FlowLedger& SlirpStack::flows() const { return state_->ledger; }

}  // namespace crosvm
