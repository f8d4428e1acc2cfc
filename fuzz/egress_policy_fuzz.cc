// What a GuestGate lets pass, whatever bytes the guest sends: judged again here, in the plainest
// way.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "base/result.h"
#include "devices/net/user/guest_gate.h"

namespace crosvm {
namespace {

using Way = GuestGate::Way;

UserNetConfig config_of(std::string_view text) {
  return *UserNetConfig::parse(*KeyValues::parse(text));
}

bool within(std::string_view range, const IpAddress& address) {
  return IpRange::parse(range)->contains(address);
}

/// Addresses that no configuration here allows.
bool is_forbidden(const IpAddress& to) {
  for (const char* range : {"127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8", "::1/128", "fe80::/10",
                            "::ffff:0:0/96", "192.0.2.0/24", "2001:db8::/32"}) {
    if (within(range, to)) return true;
  }
  return false;
}

void check_pass(const UserNetConfig& config, const GuestGate::Judgement& judged,
                std::span<const uint8_t> frame) {
  const uint16_t type = load_be16(&frame[12]);
  if (type == kEtherTypeArp) return;
  const IpFrame& ip = judged.ip;
  const uint8_t* packet = &frame[kEthernetHeaderBytes];
  // Whole: a fragment says so, and its ports are elsewhere.
  if (type == kEtherTypeIpv4) {
    CHECK(packet[0] == 0x45 && (load_be16(packet + 6) & 0xbfff) == 0);
    CHECK(ip.destination == IpAddress::from_bytes(false, {packet + 16, 4}));
  } else {
    CHECK(type == kEtherTypeIpv6 && ip.destination.v6);
    CHECK(ip.destination == IpAddress::from_bytes(true, {packet + 24, 16}));
  }
  CHECK(ip.end <= frame.size() && ip.payload_at < ip.end);
  if (ip.protocol == kProtocolTcp && !judged.begins_tcp) {
    // The library begins a connection by these flags alone.
    CHECK((packet[ip.payload_at - kEthernetHeaderBytes + 13] & 0x37) != 2);
    return;
  }
  const bool to_gateway =
      ip.destination == config.gateway4() || ip.destination == config.gateway6();
  if (to_gateway && ip.protocol == kProtocolTcp) CHECK(false);
  if (to_gateway && ip.protocol == kProtocolUdp)
    CHECK(ip.destination_port == 67 || ip.destination_port == 547);
  if (ip.protocol == kProtocolTcp || ip.protocol == kProtocolUdp)
    CHECK(!is_forbidden(ip.destination));
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  static const UserNetConfig config = config_of(
      "deny=[192.0.2.0/24,\"2001:db8::/32\"],allow=[10.0.0.0/8],forward=[udp:5000-:5000]");
  static GuestGate gate(config);
  const std::span<const uint8_t> frame(data, size);
  const GuestGate::Judgement judged = gate.judge(frame);
  if (judged.way == Way::kPass) check_pass(config, judged, frame);
  if (judged.way == Way::kEcho) CHECK(!is_forbidden(judged.ip.destination));
  // The texts that a user gives.
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (auto rule = EgressRule::parse(text)) CHECK(EgressRule::parse(rule->to_text()) == *rule);
  if (auto forward = PortForward::parse(text)) {
    CHECK(PortForward::parse(forward->to_text()) == *forward);
  }
  return 0;
}
