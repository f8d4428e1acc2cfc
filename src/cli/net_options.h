#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vmm/net_request.h"

namespace crosvm {

/// One `--net` (cli.md 1.2.5, 1.5 NetParameters). Errors: invalid_argument naming the key, or what
/// cannot be together.
Result<NetRequest> parse_net(std::string_view text);

/// The IPv4 address `text`, "10.0.0.1". Errors: invalid_argument.
Result<Ipv4Address> parse_ipv4(std::string_view text);

/// The old flags for network cards (cli.md 2.1), each with its value read.
struct OldNetOptions {
  std::optional<Ipv4Address> host_ip;
  std::optional<Ipv4Address> netmask;
  std::optional<MacAddress> mac;
  std::vector<std::string> tap_names;
  std::vector<int> tap_fds;
  uint16_t vq_pairs = 1;
  bool vhost_net = false;
  std::optional<std::string> vhost_device;
};

/// All cards, in the order of the guest's: those of `--net`, then of the old flags by name, by
/// descriptor, by address. More queue pairs than vCPUs become one, with a warning. Errors:
/// invalid_argument when only some of host-ip, netmask and mac are given, and for queue pairs that
/// cannot be.
Result<std::vector<NetRequest>> all_nets(std::vector<NetRequest> nets, const OldNetOptions& old,
                                         uint32_t vcpus);

}  // namespace crosvm
