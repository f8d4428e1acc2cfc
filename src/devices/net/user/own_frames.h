#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "devices/net/user/flow_ledger.h"
#include "devices/net/user/guest_frame.h"
#include "devices/net/user_net_config.h"

namespace crosvm {

/// The frame that tells the guest that `ip`, which is in `frame`, was not let through: ICMP
/// "administratively prohibited" from its gateway, so that a program fails at once and not after
/// minutes.
std::vector<uint8_t> denial_of(std::span<const uint8_t> frame, const IpFrame& ip,
                               const UserNetConfig& config);

/// A frame of IP for the guest, all checksums in it: `payload` of the protocol ICMP or ICMPv6,
/// whose own checksum field is 0. `like` is a frame of the guest, from whose sender's Ethernet
/// address to whose receiver's it goes back.
std::vector<uint8_t> icmp_frame_for_guest(std::span<const uint8_t> like, const IpAddress& from,
                                          const IpAddress& to, std::span<const uint8_t> payload);

/// The frame by which the guest would reset a connection: `sequence` is what comes next of what it
/// sends, `acknowledged` what it has of the other side's (RFC 9293 §3.5.2).
std::vector<uint8_t> reset_frame(const FlowLedger::Ends& ends, uint32_t sequence,
                                 std::optional<uint32_t> acknowledged);

}  // namespace crosvm
