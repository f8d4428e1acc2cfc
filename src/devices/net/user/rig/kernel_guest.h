#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "devices/net/user/user_net_port.h"
#include "memory/guest_memory.h"

namespace crosvm {

/// A guest on a UserNetPort whose network stack is this kernel's: a tap, in a network namespace of
/// its own, is its card, with 10.0.2.15, 10.0.2.20 and fd00:2::15. The port is on a thread of its
/// own, so programs of the host and of the guest are plain sockets that may wait.
class KernelGuest {
 public:
  /// Why there can be none here; empty if there can.
  static std::string missing();

  /// Made, and to be used, by the thread that enter_test_network has moved. `mtu` is the card's.
  explicit KernelGuest(std::string_view config, FlowLedger::Limits limits = {}, int mtu = 1500);
  ~KernelGuest();
  KernelGuest(const KernelGuest&) = delete;
  KernelGuest& operator=(const KernelGuest&) = delete;

  /// Calls `act` in the guest: sockets that it makes are the guest's and stay that.
  void inside(const std::function<void()>& act) const;
  void add_ipv6(const char* address) const;
  /// Its card comes up or goes down.
  void set_card_up(bool up);
  /// Connections that the port has.
  size_t tcp();
  /// Takes the port away, as the end of a VM does.
  void end();

 private:
  void make_card(int mtu);
  void on_loop(const std::function<void()>& act);
  void from_card();
  void to_card();
  ChainBuffers room(size_t bytes);

  std::unique_ptr<EventLoop> loop_;
  GuestMemory memory_;
  std::vector<GuestSlice> slices_;
  Fd host_;  // network namespaces
  Fd guest_;
  Fd card_;
  EventLoop::WatchId watch_ = 0;
  std::unique_ptr<UserNetPort> port_;
  std::thread thread_;
};

}  // namespace crosvm
