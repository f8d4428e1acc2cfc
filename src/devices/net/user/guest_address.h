#pragma once

#include "devices/net/ip_address.h"
#include "devices/net/user_net_config.h"

namespace crosvm {

/// Where a forwarded port leads that names no address of the guest: of IPv4 what DHCP gives, of
/// IPv6 what a guest makes of the advertised network and its card's address (RFC 4291 appendix A),
/// as Linux does unless it is told otherwise. The library would lead such a port nowhere until the
/// guest has spoken.
IpAddress forward_target(const UserNetConfig& config, const PortForward& forward);

}  // namespace crosvm
