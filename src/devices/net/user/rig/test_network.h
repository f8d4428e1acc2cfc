#pragma once

#include <sys/socket.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "devices/net/user/rig/listening_sockets.h"
#include "devices/net/user/rig/test_frames.h"
#include "devices/net/user/user_net_port.h"
#include "memory/guest_memory.h"

namespace crosvm {

/// Moves this process, once, into a network of its own, whose loopback interface has 192.0.2.1 and
/// 2001:db8::1 too, and into mounts of its own, in which names are resolved at 192.0.2.1. Returns
/// what kept it from that; empty: nothing.
std::string enter_test_network();

/// An address and a port as calls of sockets take them.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  SocketAddress(const IpAddress& address, uint16_t port);
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

/// A socket of the host that is bound to an address of it, any port if it is 0; does not wait. Of
/// TCP it listens.
Fd bound_socket(int type, const IpAddress& address, uint16_t port = 0);
Fd connected_socket(int type, const IpAddress& address, uint16_t port);
uint16_t port_of(const Fd& socket);

/// A guest on a UserNetPort.
class TestGuest {
 public:
  explicit TestGuest(std::string_view config = "", FlowLedger::Limits limits = {});
  ~TestGuest();

  UserNetPort& port() { return *port_; }
  void send(const Bytes& frame);
  /// Tells the network which addresses it has.
  void announce();
  /// Lets events happen for a while. Returns how often something did.
  size_t idle(std::chrono::milliseconds time);
  /// The next frame of IP that the predicate takes; those before it are gone. Nothing: none came in
  /// some seconds.
  struct Received {
    IpFrame ip;
    Bytes frame;
    Bytes payload() const {  // of TCP (without options) or UDP
      const size_t at =
          ip.payload_at +
          (ip.protocol == kProtocolTcp ? size_t{4} * (frame[ip.payload_at + 12] >> 4) : 8);
      return {frame.begin() + static_cast<ptrdiff_t>(at),
              frame.begin() + static_cast<ptrdiff_t>(ip.end)};
    }
    uint32_t number(size_t at) const {
      return static_cast<uint32_t>(load_be16(&frame[ip.payload_at + at])) << 16 |
             load_be16(&frame[ip.payload_at + at + 2]);
    }
  };
  std::optional<Received> wait(const std::function<bool(const IpFrame&)>& fits,
                               std::chrono::milliseconds patience = std::chrono::seconds(10));
  std::optional<Received> wait_protocol(uint8_t protocol) {
    return wait([&](const IpFrame& ip) { return ip.protocol == protocol; });
  }
  /// All frames that came, whatever they are.
  std::vector<Bytes> take_all();

 private:
  ChainBuffers room(size_t bytes);
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<UserNetPort> port_;
  GuestMemory memory_;
  std::vector<GuestSlice> slices_;
  std::vector<Bytes> frames_;
};

/// A connection as the guest's side has it.
struct TestConnection {
  TestGuest& guest;
  IpAddress here;
  uint16_t here_port;
  IpAddress there;
  uint16_t there_port;
  uint32_t next = 1000;
  uint32_t acknowledged = 0;

  void send(uint8_t flags, const Bytes& data = {}) {
    guest.send(
        tcp_frame(here, here_port, there, there_port,
                  {.sequence = next, .acknowledged = acknowledged, .flags = flags, .data = data}));
    next += static_cast<uint32_t>(data.size());
    if ((flags & (kTestSyn | 1)) != 0) ++next;
  }
  std::optional<TestGuest::Received> receive() {
    return guest.wait([&](const IpFrame& ip) {
      return ip.protocol == kProtocolTcp && ip.source == there && ip.source_port == there_port &&
             ip.destination_port == here_port;
    });
  }
  /// Returns whether the other side took it.
  bool connect() {
    send(kTestSyn);
    const auto answer = receive();
    if (!answer || answer->ip.tcp_flags != (kTestSyn | kTestAck)) return false;
    acknowledged = answer->number(4) + 1;
    send(kTestAck);
    return true;
  }
  /// Data of the other side, acknowledged.
  Bytes data() {
    while (auto got = receive()) {
      const Bytes bytes = got->payload();
      if (bytes.empty()) continue;
      acknowledged = got->number(4) + static_cast<uint32_t>(bytes.size());
      send(kTestAck);
      return bytes;
    }
    return {};
  }
};

/// What a socket of the host has got, waiting for it while the guest's network goes on.
Bytes host_receives(TestGuest& guest, const Fd& socket, sockaddr_storage* from = nullptr);
/// Nothing: nobody came.
Fd host_accepts(TestGuest& guest, const Fd& listener);
/// Whether the guest is told so.
bool is_prohibited(const std::optional<TestGuest::Received>& answer);

}  // namespace crosvm
