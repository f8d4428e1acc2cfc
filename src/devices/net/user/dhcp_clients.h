#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "devices/net/user/guest_frame.h"

namespace crosvm {

/// The network cards that ask for an address of IPv4. The library has addresses for 16, and loses a
/// buffer with each question of another one that it does not answer: those come to an end.
class DhcpClients {
 public:
  static constexpr size_t kMostKnown = 16;
  static constexpr int kMostUnanswered = 64;

  /// The card that a frame of the guest asks for: `chaddr` (RFC 2131 §2). Nothing: it does not ask.
  static std::optional<MacAddress> of(std::span<const uint8_t> frame, const IpFrame& ip) {
    constexpr uint16_t kServerPort = 67;
    const size_t at = ip.payload_at + 8 + 28;  // behind the header of UDP
    MacAddress client{};
    if (ip.protocol != kProtocolUdp || ip.source.v6 || ip.destination_port != kServerPort)
      return {};
    if (at + client.size() <= frame.size()) {
      std::ranges::copy(frame.subspan(at, client.size()), client.begin());
    }
    return client;
  }
  bool admits(const MacAddress& client) const {
    return unanswered_ < kMostUnanswered || is_known(client);
  }
  /// Whether the library has answered it.
  void note(const MacAddress& client, bool answered) {
    if (is_known(client)) return;
    if (!answered) {
      ++unanswered_;
    } else if (known_.size() < kMostKnown) {
      known_.push_back(client);
    }
  }

 private:
  bool is_known(const MacAddress& client) const { return std::ranges::count(known_, client) > 0; }

  std::vector<MacAddress> known_;
  int unanswered_ = 0;  // questions of others
};

}  // namespace crosvm
