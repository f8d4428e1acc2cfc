#include "devices/net/user_net_config.h"

#include <algorithm>

#include "base/format.h"
#include "devices/net/net_config.h"

namespace crosvm {
namespace {

constexpr size_t kMostRules = 1024;  // each packet that begins a flow is compared with all
constexpr size_t kMostForwards = 256;

/// Who has an address of the guest's network that no guest can have; nothing: it is a guest's.
std::string_view who_has(const UserNetConfig& config, const IpAddress& address) {
  if (address == config.gateway4() || address == config.gateway6()) return "the gateway's";
  if (address == config.resolver4() || address == config.resolver6()) return "the resolver's";
  if (address == config.ipv4.base || address == config.ipv6.base) return "that of the network";
  if (address == config.broadcast4()) return "that of all machines";
  return {};
}

/// Multicast and broadcast.
bool is_for_many(const IpAddress& address) {
  return address.v6 ? address.bytes[0] == 0xff : address.bytes[0] >= 224;
}

/// Values with brackets and commas are read back as they were.
template <class T>
std::string list_text(const std::vector<T>& items) {
  std::string text = "[";
  for (const T& item : items) {
    if (text.size() > 1) text += ',';
    text += format_text("\"{}\"", item.to_text());
  }
  return text + "]";
}

template <class T>
Result<std::vector<T>> parse_all(std::string_view key, const std::vector<std::string>& texts,
                                 size_t most) {
  if (texts.size() > most) {
    return fail(
        Error::invalid(format_text("{} has {} items; give {} at most", key, texts.size(), most)));
  }
  std::vector<T> items;
  for (const std::string& text : texts) items.push_back(TRY(with_context(T::parse(text), key)));
  return items;
}

Result<void> check_networks(const UserNetConfig& config) {
  if (config.ipv4.base.v6 || config.ipv4.prefix < 8 || config.ipv4.prefix > 27) {
    return fail(Error::invalid(format_text("ipv4-network={}: give 8 to 27 bits, as in 10.0.2.0/24",
                                           config.ipv4.to_text())));
  }
  if (!config.ipv6.base.v6 || config.ipv6.prefix != 64) {
    return fail(Error::invalid(
        format_text("ipv6-network={}: give 64 bits, as in fd00:2::/64", config.ipv6.to_text())));
  }
  for (uint8_t first : {0, 127, 169}) {
    if (config.ipv4.base.bytes[0] != first) continue;
    if (first == 169 && config.ipv4.base.bytes[1] != 254) continue;
    return fail(Error::invalid(format_text(
        "ipv4-network={}: these addresses have a meaning of their own", config.ipv4.to_text())));
  }
  if (config.ipv4.base.bytes[0] < 224 && (config.ipv6.base.bytes[0] & 0xfe) == 0xfc) return {};
  if (config.ipv4.base.bytes[0] >= 224) {
    return fail(Error::invalid(
        format_text("ipv4-network={}: no machine has such an address", config.ipv4.to_text())));
  }
  return fail(Error::invalid(format_text("ipv6-network={}: give one of fc00::/7, which are private",
                                         config.ipv6.to_text())));
}

Result<void> check_forwards(const UserNetConfig& config) {
  for (const PortForward& forward : config.forward) {
    const auto same = [&](const PortForward& other) {
      return other.udp == forward.udp && other.host == forward.host;
    };
    if (std::ranges::count_if(config.forward, same) > 1) {
      return fail(
          Error::invalid(format_text("forward: {} is forwarded twice", forward.host.to_text())));
    }
    const auto& to = forward.guest.address;
    if (!to) continue;
    if (to->v6 != forward.host.address->v6) {
      return fail(
          Error::invalid(format_text("forward: {} leads from one kind of address to the other; "
                                     "give two of IPv4 or two of IPv6",
                                     forward.to_text())));
    }
    if (!(to->v6 ? config.ipv6 : config.ipv4).contains(*to)) {
      return fail(
          Error::invalid(format_text("forward: {} is not in the guest's network {}", to->to_text(),
                                     (to->v6 ? config.ipv6 : config.ipv4).to_text())));
    }
    if (const std::string_view whose = who_has(config, *to); !whose.empty()) {
      return fail(Error::invalid(format_text(
          "forward={}: {} is {} in the guest's network; give an address of the guest, or none: "
          "{}:{}-:{}",
          forward.to_text(), to->to_text(), whose, forward.udp ? "udp" : "tcp",
          forward.host.to_text(), forward.guest.port)));
    }
  }
  return {};
}

}  // namespace

Result<EgressRule> EgressRule::parse(std::string_view text) {
  EgressRule rule;
  std::string_view range = text;
  std::string_view ports;
  if (text.starts_with('[')) {
    const size_t end = text.find("]:");
    if (end == std::string_view::npos) {
      return fail(Error::invalid(format_text("`{}` is not like [fd00::/8]:443", text)));
    }
    range = text.substr(1, end - 1);
    ports = text.substr(end + 2);
    if (range.find(':') == std::string_view::npos) {
      return fail(Error::invalid(format_text("`{}`: brackets are for addresses of IPv6", text)));
    }
  } else if (std::ranges::count(text, ':') == 1) {
    range = text.substr(0, text.find(':'));
    ports = text.substr(text.find(':') + 1);
  }
  rule.range = TRY(IpRange::parse(range));
  if (range.size() != text.size()) rule.ports = TRY(parse_ports(ports));
  return rule;
}

std::string EgressRule::to_text() const {
  if (ports.all()) return range.to_text();
  if (range.base.v6) {
    return format_text("[{}]:{}-{}", range.to_text(), ports.first, ports.last);
  }
  return format_text("{}:{}-{}", range.to_text(), ports.first, ports.last);
}

Result<PortForward> PortForward::parse(std::string_view text) {
  PortForward forward;
  const size_t dash = text.find('-');
  forward.udp = text.starts_with("udp:");
  if ((!forward.udp && !text.starts_with("tcp:")) || dash == std::string_view::npos) {
    return fail(Error::invalid(
        format_text("`{}` is not like tcp:8080-:80 or udp:127.0.0.1:5353-10.0.2.15:53", text)));
  }
  forward.host = TRY(parse_endpoint(text.substr(4, dash - 4)));
  forward.guest = TRY(parse_endpoint(text.substr(dash + 1)));
  if (forward.host.address && is_for_many(*forward.host.address)) {
    return fail(
        Error::invalid(format_text("{}: nobody connects to a group of machines; give an "
                                   "address of this host, or none for its loopback",
                                   forward.host.to_text())));
  }
  if (!forward.host.address) {
    const bool v6 = forward.guest.address && forward.guest.address->v6;
    forward.host.address = v6 ? *IpAddress::parse("::1") : IpAddress::v4(127, 0, 0, 1);
  }
  return forward;
}

std::string PortForward::to_text() const {
  return format_text("{}:{}-{}", udp ? "udp" : "tcp", host.to_text(), guest.to_text());
}

UserNetConfig::UserNetConfig() : ipv6{*IpAddress::parse("fd00:2::"), 64} {}

IpAddress UserNetConfig::host6(uint8_t number) const {
  IpAddress address = ipv6.base;
  address.bytes[15] = number;
  return address;
}

Result<UserNetConfig> UserNetConfig::parse(const KeyValues& text) {
  UserNetConfig config;
  std::string ipv4 = config.ipv4.to_text();
  std::string ipv6 = config.ipv6.to_text();
  std::vector<std::string> allow;
  std::vector<std::string> deny;
  std::vector<std::string> forward;
  std::optional<bool> mergeable;
  TRY(text.read(
      {kv_key("mac", config.mac), kv_key("mtu", config.mtu), kv_key("mrg-rxbuf", mergeable),
       kv_key("packed-queue", config.packed_queue), kv_key("pci-address", config.pci_address),
       kv_key("ipv4-network", ipv4), kv_key("ipv6-network", ipv6), kv_key("allow", allow),
       kv_key("deny", deny), kv_key("forward", forward)},
      {.positional = false}));
  config.mrg_rxbuf = TRY(mergeable_buffers(mergeable, config.packed_queue));
  if (config.mtu < kLeastMtu || config.mtu > kMostMtu) {
    return fail(
        Error::invalid(format_text("mtu={}: give {} to {}", config.mtu, kLeastMtu, kMostMtu)));
  }
  config.ipv4 = TRY(with_context(IpRange::parse(ipv4), "ipv4-network"));
  config.ipv6 = TRY(with_context(IpRange::parse(ipv6), "ipv6-network"));
  TRY(check_networks(config));
  config.allow = TRY(parse_all<EgressRule>("allow", allow, kMostRules));
  config.deny = TRY(parse_all<EgressRule>("deny", deny, kMostRules));
  config.forward = TRY(parse_all<PortForward>("forward", forward, kMostForwards));
  TRY(check_forwards(config));
  return config;
}

std::string UserNetConfig::to_text() const {
  std::string text =
      format_text("mtu={},mrg-rxbuf={},packed-queue={},ipv4-network={},ipv6-network=\"{}\"", mtu,
                  mrg_rxbuf, packed_queue, ipv4.to_text(), ipv6.to_text());
  if (!mac.empty()) text += ",mac=" + mac;
  if (!allow.empty()) text += ",allow=" + list_text(allow);
  if (!deny.empty()) text += ",deny=" + list_text(deny);
  if (!forward.empty()) text += ",forward=" + list_text(forward);
  return text;
}

}  // namespace crosvm
