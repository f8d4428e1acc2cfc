#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/key_value.h"
#include "base/result.h"
#include "devices/net/ip_address.h"
#include "devices/net/net_abi.h"

namespace crosvm {

/// Addresses and ports that a guest may or may not reach.
struct EgressRule {
  IpRange range;
  PortRange ports;

  /// "10.0.0.0/8", "10.1.2.3:443", "10.1.2.3:8000-8100", "fd00::/8" or "[fd00::/8]:443".
  static Result<EgressRule> parse(std::string_view text);
  std::string to_text() const;
  friend bool operator==(const EgressRule&, const EgressRule&) = default;
};

/// A port of the host that leads to one of the guest.
struct PortForward {
  bool udp = false;
  Endpoint host;   ///< its address is always there
  Endpoint guest;  ///< without an address: the one that DHCP gives, or the guest's own of IPv6

  /// "tcp:8080-:80", "udp:0.0.0.0:53-10.0.2.15:53", "tcp:[::1]:8080-:80": PROTOCOL:HOST-GUEST.
  static Result<PortForward> parse(std::string_view text);
  std::string to_text() const;
  friend bool operator==(const PortForward&, const PortForward&) = default;
};

/// `--net user`: a network without any privilege.
struct UserNetConfig {
  // The card, as NetConfig has it:
  std::string mac;  ///< of the guest; empty: a stable one
  uint16_t mtu = 1500;
  bool mrg_rxbuf = true;
  bool packed_queue = false;
  std::string
      pci_address;  ///< where it lies, which is none of the device's business; empty: anywhere
  // The network:
  IpRange ipv4{IpAddress::v4(10, 0, 2, 0), 24};  ///< of 8 to 27 bits
  IpRange ipv6;                                  ///< of 64 bits
  std::vector<EgressRule> allow;
  std::vector<EgressRule> deny;
  std::vector<PortForward> forward;

  static constexpr uint16_t kLeastMtu = 1280;  ///< of IPv6
  static constexpr uint16_t kMostMtu = 65520;

  UserNetConfig();
  /// Errors: invalid_argument naming the key and what it may be.
  static Result<UserNetConfig> parse(const KeyValues& text);
  /// The text that parses to this, pci_address aside.
  std::string to_text() const;

  // Who has which address in the guest's network: the host, names, and the guest by DHCP.
  IpAddress gateway4() const { return IpAddress::from_number(ipv4.base.number() + 2); }
  IpAddress resolver4() const { return IpAddress::from_number(ipv4.base.number() + 3); }
  /// That of all machines.
  IpAddress broadcast4() const {
    return IpAddress::from_number(ipv4.base.number() | (0xffffffffU >> ipv4.prefix));
  }
  IpAddress first_guest4() const { return IpAddress::from_number(ipv4.base.number() + 15); }
  IpAddress gateway6() const { return host6(2); }
  IpAddress resolver6() const { return host6(3); }

 private:
  IpAddress host6(uint8_t number) const;
};

}  // namespace crosvm
