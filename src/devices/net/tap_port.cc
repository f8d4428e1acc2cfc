#include "devices/net/tap_port.h"

#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace crosvm {
namespace {

// In headers from Linux 6.2 on.
constexpr unsigned kTunUso4 = 0x20;  // TUN_F_USO4
constexpr unsigned kTunUso6 = 0x40;  // TUN_F_USO6

constexpr uint64_t kUso = net_feature(kNetFeatureGuestUso4) | net_feature(kNetFeatureGuestUso6);

bool set_offload(const Fd& tap, uint64_t guest_offloads) {
  return ::ioctl(tap.get(), TUNSETOFFLOAD,
                 static_cast<unsigned long>(tap_offload_flags(guest_offloads))) == 0;
}

/// Attaches a queue of a tap, or detaches it. Returns whether it did; else errno has why not.
bool attach_queue(const Fd& tap, bool on) {
  ifreq request{};
  request.ifr_flags = static_cast<short>(on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
  return ::ioctl(tap.get(), TUNSETQUEUE, &request) == 0;
}

/// What this kernel's taps can do, of both directions. None are in use afterwards.
uint64_t find_offloads(const Fd& tap) {
  // A queue that the process before us had detached refuses all but this. Fails for any other.
  (void)attach_queue(tap, true);
  uint64_t found = 0;
  if (set_offload(tap, kNetGuestOffloads)) {
    found = kNetGuestOffloads | kNetHostOffloads;
  } else if (set_offload(tap, kNetGuestOffloads & ~kUso)) {
    found = (kNetGuestOffloads | kNetHostOffloads) & ~kUso & ~net_feature(kNetFeatureHostUso);
  }
  (void)set_offload(tap, 0);
  return found;
}

bool is_up(const Fd& tap) {
  pollfd state{.fd = tap.get(), .events = POLLOUT, .revents = 0};
  return ::poll(&state, 1, 0) < 0 || (state.revents & (POLLOUT | POLLERR)) != 0;
}

void add_pieces(const ChainBuffers& buffers, std::vector<iovec>& pieces) {
  for (const GuestSlice& slice : buffers.slices()) pieces.push_back(slice.as_iovec());
}

}  // namespace

unsigned tap_offload_flags(uint64_t guest_offloads) {
  const auto has = [&](unsigned feature) { return (guest_offloads & net_feature(feature)) != 0; };
  if (!has(VIRTIO_NET_F_GUEST_CSUM)) return 0;
  unsigned flags = TUN_F_CSUM;
  if (has(VIRTIO_NET_F_GUEST_TSO4)) flags |= TUN_F_TSO4;
  if (has(VIRTIO_NET_F_GUEST_TSO6)) flags |= TUN_F_TSO6;
  if (has(VIRTIO_NET_F_GUEST_ECN) && (flags & (TUN_F_TSO4 | TUN_F_TSO6)) != 0) {
    flags |= TUN_F_TSO_ECN;
  }
  if (has(VIRTIO_NET_F_GUEST_UFO)) flags |= TUN_F_UFO;
  // The kernel takes both or none.
  if ((guest_offloads & kUso) == kUso) flags |= kTunUso4 | kTunUso6;
  return flags;
}

TapPort::TapPort(EventLoop& loop, Fd tap, std::string name)
    : loop_(loop), tap_(std::move(tap)), name_(std::move(name)), offloads_(find_offloads(tap_)) {}

TapPort::~TapPort() {
  if (watch_ != 0) loop_.unwatch(watch_);
}

void TapPort::begin(Events events) {
  events_ = std::move(events);
  begun_ = true;
  if (used_ && !is_up(tap_)) set_link(Link::kDown, ENETDOWN);
  update_watch();
}

void TapPort::set_guest_offloads(uint64_t features) {
  if (link_ != Link::kGone && !set_offload(tap_, features) && limit_.allows()) {
    log::warn("{}", Error::from_errno("setting the offloads of", name_).what());
  }
}

/// The queues of a tap that are attached share its traffic. One that is not has nothing to receive
/// and takes what is sent.
void TapPort::set_used(bool used) {
  if (used == used_ || link_ == Link::kGone) return;
  if (!used) {
    used_ = false;
    update_watch();
    // Nobody is told of room any more.
    if (std::exchange(sending_waits_, false)) events_.sendable();
    if (link_ == Link::kDown) {
      link_ = Link::kUp;  // the other queues tell of it
      if (events_.link_changed) events_.link_changed(true);
    }
  }
  if (!attach_queue(tap_, used)) {
    const char* doing = used ? "attaching a queue of" : "detaching a queue of";
    if (limit_.allows()) log::warn("{}", Error::from_errno(doing, name_).what());
    return;
  }
  if (!used) return;
  used_ = true;
  if (begun_ && !is_up(tap_)) set_link(Link::kDown, ENETDOWN);
  update_watch();
}

void TapPort::listen(bool on) {
  if (on == listening_) return;
  listening_ = on;
  update_watch();
}

void TapPort::check_link() {
  pollfd state{.fd = tap_.get(), .events = POLLOUT, .revents = 0};
  if (!used_ || ::poll(&state, 1, 0) < 0) return;
  if ((state.revents & POLLERR) != 0) return set_link(Link::kGone, EBADFD);
  set_link((state.revents & POLLOUT) != 0 ? Link::kUp : Link::kDown, ENETDOWN);
}

void TapPort::discard_waiting() {
  // So many that a host which sends without end does not keep us.
  for (int left = 4096; left > 0; --left) {
    std::array<std::byte, kNetHeaderBytes> start;  // the rest goes with it
    if (::read(tap_.get(), start.data(), start.size()) < 0) return;
  }
}

/// A descriptor whose interface is gone is always ready with an error.
void TapPort::update_watch() {
  if (!begun_) return;
  if (!used_ || link_ == Link::kGone) {
    if (watch_ != 0) loop_.unwatch(std::exchange(watch_, 0));
    return;
  }
  // A tap never has what EPOLLPRI asks for, but is heard when it goes away.
  const uint32_t wanted = (listening_ ? uint32_t{EPOLLIN} : uint32_t{EPOLLPRI}) |
                          (sending_waits_ || link_ == Link::kDown ? EPOLLOUT : 0U);
  if (watch_ != 0 && wanted == watched_) return;
  Result<void> watching;
  if (watch_ != 0) {
    watching = loop_.set_events(watch_, wanted);
  } else {
    auto made = loop_.watch(tap_, wanted, [this](uint32_t events) { ready(events); });
    if (made) watch_ = *made;
    if (!made) watching = fail(std::move(made).error());
  }
  watched_ = wanted;
  if (!watching) log::error("{}: {}", name_, watching.error().what());
}

void TapPort::ready(uint32_t events) {
  const bool failed = (events & (EPOLLERR | EPOLLHUP)) != 0;
  if (failed) set_link(Link::kGone, EBADFD);
  if ((events & EPOLLOUT) != 0 && link_ == Link::kDown) set_link(Link::kUp, 0);
  if ((failed || (events & EPOLLOUT) != 0) && std::exchange(sending_waits_, false)) {
    update_watch();
    events_.sendable();
  }
  if ((events & EPOLLIN) != 0 && listening_) events_.receivable();
}

void TapPort::set_link(Link link, int error_number) {
  if (link == link_ || link_ == Link::kGone) return;
  link_ = link;
  const char* cause = std::strerror(error_number);
  if (link == Link::kUp) {
    log::info("tap {}: it is up again, and so is the guest's link", name_);
  } else if (link == Link::kDown) {
    log::error("tap {}: {}; the guest's link is down until `ip link set dev {} up`", name_, cause,
               name_);
  } else {
    log::error("tap {}: it is gone ({}), and the guest's link is down for good; it needs a new VM",
               name_, cause);
  }
  update_watch();
  if (events_.link_changed) events_.link_changed(link == Link::kUp);
}

std::optional<size_t> TapPort::receive(const ChainBuffers& room) {
  if (link_ == Link::kGone || !used_) return std::nullopt;
  pieces_.clear();
  add_pieces(room, pieces_);
  const auto count = static_cast<int>(std::min<size_t>(pieces_.size(), IOV_MAX));
  const ssize_t got = ::readv(tap_.get(), pieces_.data(), count);
  if (got < 0) return std::nullopt;  // of a tap that is gone the loop tells
  return static_cast<size_t>(got);
}

NetPort::Sent TapPort::send(const NetHeader& header, const ChainBuffers& packet) {
  if (link_ != Link::kUp) return Sent::kDone;
  NetHeader ours = header;
  pieces_.clear();
  pieces_.push_back({&ours, sizeof(ours)});
  add_pieces(packet, pieces_);
  if (pieces_.size() > IOV_MAX) return used_ ? failed_to_send(EMSGSIZE) : Sent::kDone;
  const ssize_t sent = ::writev(tap_.get(), pieces_.data(), static_cast<int>(pieces_.size()));
  // Of a pair that is out of use nobody watches when there is room, nor where the link goes.
  return sent >= 0 || !used_ ? Sent::kDone : failed_to_send(errno);
}

NetPort::Sent TapPort::failed_to_send(int error_number) {
  switch (error_number) {
    case EAGAIN:
      sending_waits_ = true;
      update_watch();
      return Sent::kLater;
    case EIO:  // what a tap says whose interface is not up
      set_link(Link::kDown, ENETDOWN);
      return Sent::kDone;
    case EBADFD:
      set_link(Link::kGone, error_number);
      return Sent::kDone;
    default:
      if (limit_.allows()) {
        log::warn("{}; a packet of the guest is lost",
                  Error::from_errno("sending to tap", name_, error_number).what());
      }
      return Sent::kDone;
  }
}

}  // namespace crosvm
