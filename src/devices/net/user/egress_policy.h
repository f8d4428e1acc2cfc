#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "devices/net/ip_address.h"
#include "devices/net/user_net_config.h"

namespace crosvm {

/// Which addresses outside a guest may reach. Of all rules that hold for a destination the one with
/// the longest prefix decides, then the one with fewer ports, then a denial; whoever meets none may
/// pass. Some ranges are denied from the beginning, and no less specific rule of the user allows
/// them: loopback, link-local and metadata addresses, multicast and what no machine has. An IPv6
/// address that stands for one of IPv4 must be allowed as both.
class EgressPolicy {
 public:
  EgressPolicy(std::vector<EgressRule> allow, std::vector<EgressRule> deny);

  /// Whether packets may go there; port 0 for what has none, which rules for ports do not concern.
  bool allows(const IpAddress& destination, uint16_t port) const;
  /// Whether any rule of the user could let something through to the host's own loopback.
  bool may_reach_loopback() const;

 private:
  struct Rule {
    EgressRule where;
    bool allowed = false;
    bool built_in = false;
  };
  bool allows_literally(const IpAddress& destination, uint16_t port) const;

  std::vector<Rule> rules_;  // the first that holds decides
};

}  // namespace crosvm
