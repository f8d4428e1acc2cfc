#pragma once

#include <sys/uio.h>

#include <string>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/log_limit.h"
#include "devices/net/net_port.h"

namespace crosvm {

/// A queue of a tap: a descriptor of /dev/net/tun with IFF_TAP, IFF_NO_PI, IFF_VNET_HDR and headers
/// of 12 bytes, non-blocking. Needs no privilege and no name.
///
/// Whether the interface is up is seen when a packet is sent and by the descriptor's readiness:
/// there are no other ways without a socket of the tap's network namespace.
class TapPort : public NetPort {
 public:
  /// `name` names the tap in logs. The loop outlives this.
  TapPort(EventLoop& loop, Fd tap, std::string name);
  ~TapPort() override;

  void begin(Events events) override;
  /// Instead of `begin`, of a queue whose packets somebody else moves: nothing is watched, and
  /// `check_link` looks whether the interface is up.
  void begin_unwatched(Events events) { events_ = std::move(events); }
  void check_link();
  /// The packets that wait are lost.
  void discard_waiting();
  uint64_t offloads() const override { return offloads_; }
  void set_guest_offloads(uint64_t features) override;
  void set_used(bool used) override;
  void listen(bool on) override;
  std::optional<size_t> receive(const ChainBuffers& room) override;
  Sent send(const NetHeader& header, const ChainBuffers& packet) override;

 private:
  enum class Link { kUp, kDown, kGone };
  void update_watch();
  void ready(uint32_t events);
  void set_link(Link link, int error_number);
  Sent failed_to_send(int error_number);

  EventLoop& loop_;
  Fd tap_;
  const std::string name_;
  LogLimit limit_{"failures of a tap"};
  Events events_;
  uint64_t offloads_ = 0;
  Link link_ = Link::kUp;
  bool begun_ = false;
  bool used_ = true;
  bool listening_ = false;
  bool sending_waits_ = false;
  EventLoop::WatchId watch_ = 0;  // 0: none
  uint32_t watched_ = 0;          // its events
  std::vector<iovec> pieces_;     // of the call at hand
};

/// The TUN_F_ flags of TUNSETOFFLOAD for those of kNetGuestOffloads; what cannot be without another
/// is left out.
unsigned tap_offload_flags(uint64_t guest_offloads);

}  // namespace crosvm
