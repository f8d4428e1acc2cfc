#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "devices/net/user/egress_policy.h"
#include "devices/net/user/guest_frame.h"
#include "devices/net/user_net_config.h"

namespace crosvm {

/// What becomes of a frame of the guest: decided here, before a library reads it.
///
/// The guest speaks for addresses of its network alone, to its gateway and resolver, and through
/// the gateway to whom the EgressPolicy allows. The gateway's ports stand for those of the host's
/// loopback. A connection of TCP is judged when it begins, datagrams each for itself; the answers
/// of a forwarded port go to those alone that it has heard.
class GuestGate {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Way {
    kPass,    ///< to the library
    kEcho,    ///< a ping to somebody outside
    kIgnore,  ///< what every guest sends, and nobody needs
    kRefuse,  ///< nonsense, or not the guest's to send
    kDeny,    ///< the policy does not allow its destination
  };
  struct Judgement {
    Way way = Way::kRefuse;
    std::string_view why;  ///< of kRefuse
    IpFrame ip;            ///< of a frame of IP that was read
    bool begins_tcp = false;
    bool asks_for_address = false;  ///< by DHCP or DHCPv6, of which no flow comes
  };

  explicit GuestGate(const UserNetConfig& config);

  Judgement judge(std::span<const uint8_t> frame, Clock::time_point now = Clock::now()) const;
  /// To be told of every frame for the guest: whoever sends to a forwarded port of UDP is answered.
  void note_for_guest(std::span<const uint8_t> frame, Clock::time_point now = Clock::now());

 private:
  using Socket = std::pair<IpAddress, uint16_t>;
  Judgement judge_arp(const ArpFrame& arp, std::span<const uint8_t> frame) const;
  Judgement judge_ip(const IpFrame& ip, Clock::time_point now) const;
  Way judge_icmp(const IpFrame& ip) const;
  Way judge_neighbour_discovery(const IpFrame& ip) const;
  Way judge_flow(const IpFrame& ip, Clock::time_point now) const;
  bool is_host(const IpAddress& address) const;
  bool is_guest(const IpAddress& address) const;
  bool asks_for_address(const IpFrame& ip) const;
  bool is_forwarded_udp(const IpAddress& address, uint16_t port) const;
  bool may_be_answered(const IpFrame& ip) const;
  bool answers_forwarded(const IpFrame& ip, Clock::time_point now) const;

  const UserNetConfig config_;
  const EgressPolicy policy_;
  const IpAddress gateway4_;
  const IpAddress gateway6_;
  const IpAddress resolver4_;
  const IpAddress resolver6_;
  const IpAddress broadcast4_;
  std::vector<Socket> forwarded_udp_;  // the guest's
  /// Who has been heard by a forwarded port (the guest's socket, then the other), and when.
  std::map<std::pair<Socket, Socket>, Clock::time_point> heard_;
};

}  // namespace crosvm
