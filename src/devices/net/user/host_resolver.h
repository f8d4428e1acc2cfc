#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "devices/net/ip_address.h"

namespace crosvm {

/// Whom the library asks for names, of one family: the first `nameserver` that resolv.conf(5) has
/// of it. Nothing: there is none, or none that can be told, as it names an interface.
std::optional<IpAddress> resolver_in(std::string_view resolv_conf, bool v6);

/// What stands in /etc/resolv.conf, as far as 16 KiB; empty if it cannot be read.
std::string read_resolv_conf();

}  // namespace crosvm
