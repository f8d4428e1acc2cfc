#include "devices/net/user/guest_gate.h"

#include <algorithm>
#include <variant>

#include "devices/net/user/flow_ledger.h"
#include "devices/net/user/guest_address.h"

namespace crosvm {
namespace {

constexpr uint8_t kEchoRequest4 = 8;
constexpr uint8_t kEchoRequest6 = 128;
constexpr uint8_t kRouterSolicitation = 133;
constexpr uint8_t kRouterAdvertisement = 134;
constexpr uint8_t kRedirect = 137;
constexpr uint8_t kLinkHops = 255;  // such packets come from no farther than the link

constexpr uint16_t kDnsPort = 53;
constexpr uint16_t kDhcpPort = 67;
constexpr uint16_t kDhcpv6Port = 547;

constexpr size_t kMostHeard = 1024;

const IpAddress kBroadcast = IpAddress::v4(255, 255, 255, 255);
const IpAddress kLoopback4 = IpAddress::v4(127, 0, 0, 1);
const IpAddress kLoopback6 = *IpAddress::parse("::1");
const IpAddress kDhcpv6Servers = *IpAddress::parse("ff02::1:2");
/// What the library takes for its own address of the link, whatever the network is.
const IpAddress kGatewayOfLink = *IpAddress::parse("fe80::2");

bool is_link_local(const IpAddress& address) {
  return address.v6 && address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
}
bool is_multicast(const IpAddress& address) {
  return address.v6 ? address.bytes[0] == 0xff : address.bytes[0] >> 4 == 14;
}
bool begins_tcp(const IpFrame& ip) {
  return ip.protocol == kProtocolTcp && (ip.tcp_flags & (kTcpSyn | kTcpAck)) == kTcpSyn;
}

}  // namespace

GuestGate::GuestGate(const UserNetConfig& config)
    : config_(config),
      policy_(config.allow, config.deny),
      gateway4_(config.gateway4()),
      gateway6_(config.gateway6()),
      resolver4_(config.resolver4()),
      resolver6_(config.resolver6()),
      broadcast4_(config.broadcast4()) {
  for (const PortForward& each : config.forward) {
    if (each.udp) forwarded_udp_.emplace_back(forward_target(config, each), each.guest.port);
  }
}

bool GuestGate::is_host(const IpAddress& address) const {
  return address == gateway4_ || address == gateway6_ || address == resolver4_ ||
         address == resolver6_ || address == kGatewayOfLink;
}

/// Of its networks, and nobody else's.
bool GuestGate::is_guest(const IpAddress& address) const {
  if (is_host(address)) return false;
  if (address.v6) return config_.ipv6.contains(address) || is_link_local(address);
  return config_.ipv4.contains(address) && address != broadcast4_ && address != config_.ipv4.base;
}

GuestGate::Judgement GuestGate::judge(std::span<const uint8_t> frame, Clock::time_point now) const {
  if (frame.size() > 6 && (frame[6] & 1) != 0) {
    return {.way = Way::kRefuse, .why = "a frame from many", .ip = {}};
  }
  const GuestFrame read = read_guest_frame(frame);
  if (const auto* refused = std::get_if<RefusedFrame>(&read)) {
    return {.way = Way::kRefuse, .why = refused->why, .ip = {}};
  }
  if (const auto* arp = std::get_if<ArpFrame>(&read)) return judge_arp(*arp, frame);
  return judge_ip(std::get<IpFrame>(read), now);
}

GuestGate::Judgement GuestGate::judge_arp(const ArpFrame& arp,
                                          std::span<const uint8_t> frame) const {
  if (!std::ranges::equal(arp.sender_mac, frame.subspan(6, 6))) {
    return {.way = Way::kRefuse, .why = "ARP in another's name", .ip = {}};
  }
  if (!arp.sender.is_zero() && !is_guest(arp.sender)) {
    return {.way = Way::kRefuse, .why = "ARP for an address that is not the guest's", .ip = {}};
  }
  return {.way = Way::kPass, .why = {}, .ip = {}};
}

GuestGate::Judgement GuestGate::judge_ip(const IpFrame& ip, Clock::time_point now) const {
  Judgement judgement{.way = Way::kRefuse, .why = {}, .ip = ip, .begins_tcp = begins_tcp(ip)};
  if (asks_for_address(ip)) {
    judgement.asks_for_address = true;
    judgement.way = Way::kPass;
  } else if (ip.protocol == kProtocolIcmpv6 && ip.icmp_type >= kRouterSolicitation &&
             ip.icmp_type <= kRedirect) {
    judgement.way = judge_neighbour_discovery(ip);
    judgement.why = "neighbour discovery that is not a guest's";
  } else if (is_multicast(ip.destination) || ip.destination == kBroadcast ||
             ip.destination == broadcast4_) {
    judgement.way = Way::kIgnore;
  } else if (!is_guest(ip.source)) {
    judgement.why = "a source address that is not the guest's";
  } else if (ip.protocol == kProtocolIcmp || ip.protocol == kProtocolIcmpv6) {
    judgement.way = judge_icmp(ip);
  } else if (judgement.begins_tcp && (ip.tcp_flags & (kTcpFin | kTcpRst | kTcpUrg)) != 0) {
    judgement.why = "a connection that begins and ends";
  } else {
    judgement.way = judge_flow(ip, now);
  }
  return judgement;
}

/// DHCP and DHCPv6.
bool GuestGate::asks_for_address(const IpFrame& ip) const {
  if (ip.protocol != kProtocolUdp) return false;
  if (ip.source.v6) {
    return ip.destination_port == kDhcpv6Port && is_link_local(ip.source) && is_guest(ip.source) &&
           (ip.destination == kDhcpv6Servers || ip.destination == gateway6_);
  }
  return ip.destination_port == kDhcpPort && (ip.source.is_zero() || is_guest(ip.source)) &&
         (ip.destination == kBroadcast || ip.destination == gateway4_);
}

GuestGate::Way GuestGate::judge_neighbour_discovery(const IpFrame& ip) const {
  if (ip.icmp_type == kRouterAdvertisement || ip.icmp_type == kRedirect || ip.hops != kLinkHops) {
    return Way::kRefuse;
  }
  return ip.source.is_zero() || is_guest(ip.source) ? Way::kPass : Way::kRefuse;
}

GuestGate::Way GuestGate::judge_icmp(const IpFrame& ip) const {
  // What it says of our packets has no use: those that it could be about end here.
  if (ip.icmp_type != (ip.source.v6 ? kEchoRequest6 : kEchoRequest4) || ip.icmp_code != 0) {
    return Way::kIgnore;
  }
  // The library answers for these itself, but not for the resolver of IPv6.
  if (ip.destination == resolver6_) return Way::kIgnore;
  if (is_host(ip.destination)) return Way::kPass;
  if (is_guest(ip.destination) || is_link_local(ip.source)) return Way::kIgnore;
  return policy_.allows(ip.destination, 0) ? Way::kEcho : Way::kDeny;
}

GuestGate::Way GuestGate::judge_flow(const IpFrame& ip, Clock::time_point now) const {
  if (is_link_local(ip.source) || ip.destination == kGatewayOfLink) return Way::kIgnore;
  if (ip.destination == resolver4_ || ip.destination == resolver6_) {
    return ip.destination_port == kDnsPort ? Way::kPass : Way::kDeny;
  }
  // What belongs to no connection gets no answer but a reset, and reaches nobody.
  if (ip.protocol == kProtocolTcp && !begins_tcp(ip)) return Way::kPass;
  if (answers_forwarded(ip, now) && may_be_answered(ip)) return Way::kPass;
  if (ip.destination == gateway4_ || ip.destination == gateway6_) {
    const IpAddress& loopback = ip.source.v6 ? kLoopback6 : kLoopback4;
    return policy_.allows(loopback, ip.destination_port) ? Way::kPass : Way::kDeny;
  }
  if ((ip.destination.v6 ? config_.ipv6 : config_.ipv4).contains(ip.destination)) {
    return Way::kIgnore;  // nobody else is there
  }
  // The loopback itself is reached by the gateway's address alone.
  if (ip.destination.is_loopback()) return Way::kDeny;
  return policy_.allows(ip.destination, ip.destination_port) ? Way::kPass : Way::kDeny;
}

bool GuestGate::is_forwarded_udp(const IpAddress& address, uint16_t port) const {
  return std::ranges::count(forwarded_udp_, Socket(address, port)) > 0;
}

/// Whoever sends to a port that is bound to more than the loopback may say that he is anybody: such
/// an answer goes nowhere where the guest could not go by itself.
bool GuestGate::may_be_answered(const IpFrame& ip) const {
  const bool from_loopback = std::ranges::all_of(config_.forward, [&](const PortForward& forward) {
    return !forward.udp || forward.guest.port != ip.source_port ||
           forward.host.address->is_loopback();
  });
  if (from_loopback) return true;
  const bool host = (ip.source.v6 ? config_.ipv6 : config_.ipv4).contains(ip.destination);
  const IpAddress& loopback = ip.source.v6 ? kLoopback6 : kLoopback4;
  return policy_.allows(host ? loopback : ip.destination, ip.destination_port);
}

bool GuestGate::answers_forwarded(const IpFrame& ip, Clock::time_point now) const {
  if (ip.protocol != kProtocolUdp || !is_forwarded_udp(ip.source, ip.source_port)) return false;
  const auto known =
      heard_.find({{ip.source, ip.source_port}, {ip.destination, ip.destination_port}});
  return known != heard_.end() && now - known->second < FlowLedger::kDatagramSilence;
}

void GuestGate::note_for_guest(std::span<const uint8_t> frame, Clock::time_point now) {
  if (config_.forward.empty()) return;
  const GuestFrame read = read_guest_frame(frame);
  const auto* ip = std::get_if<IpFrame>(&read);
  if (!ip || ip->protocol != kProtocolUdp ||
      !is_forwarded_udp(ip->destination, ip->destination_port)) {
    return;
  }
  if (heard_.size() >= kMostHeard) {
    std::erase_if(heard_, [&](const auto& each) {
      return now - each.second >= FlowLedger::kDatagramSilence;
    });
  }
  if (heard_.size() >= kMostHeard) {
    heard_.erase(
        std::ranges::min_element(heard_, {}, [](const auto& each) { return each.second; }));
  }
  heard_[{{ip->destination, ip->destination_port}, {ip->source, ip->source_port}}] = now;
}

}  // namespace crosvm
