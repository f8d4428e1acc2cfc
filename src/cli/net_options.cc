#include "cli/net_options.h"

#include <arpa/inet.h>

#include <limits>
#include <utility>

#include "base/format.h"
#include "base/key_value.h"
#include "base/log.h"
#include "cli/own_net_options.h"
#include "devices/net/net_config.h"
#include "pci/pci_address.h"

namespace crosvm {
namespace {

constexpr const char* kVhostNet = "/dev/vhost-net";
constexpr std::string_view kModes =
    "give tap-name, tap-fd, or host-ip with netmask and mac; or user or passt as the first key";

/// A value of a key whose type decides what card it is: a number where it looks like one, a boolean
/// where it begins like one, else a string (cli.md 1.2.5).
struct Untyped {
  std::string text;
  std::optional<int64_t> number;
  bool is_boolean = false;
};

Result<void> read_kv(const KvValue& value, Untyped& out) {
  TRY(value.read(out.text));
  int64_t number = 0;
  if (value.read(number)) out.number = number;
  const std::string_view text = out.text;
  const bool quoted = !value.variant({&text, 1}).has_value();
  out.is_boolean = !quoted && (text.starts_with("true") || text.starts_with("false"));
  return {};
}

Error no_variant(std::string_view why) {
  return Error::invalid(format_text("no variant matched: {}", why));
}

Result<std::string> as_string(const Untyped& value, std::string_view key) {
  if (!value.number && !value.is_boolean) return value.text;
  return fail(no_variant(format_text("{}={} is read as a {}; quote it: {}=\"{}\"", key, value.text,
                                     value.number ? "number" : "boolean", key, value.text)));
}

struct VhostKey {
  std::string device = kVhostNet;
};
Result<void> read_kv(const KvValue& value, VhostKey& key) {
  return value.read_struct({kv_key("device", key.device)});
}

/// The keys that say what kind of card it is.
struct ModeKeys {
  std::optional<Untyped> tap_name;
  std::optional<Untyped> tap_fd;
  std::optional<Untyped> host_ip;
  std::optional<Untyped> netmask;
  std::optional<Untyped> mac;
};

Result<TapAddress> tap_address(const ModeKeys& keys) {
  if (!keys.host_ip || !keys.netmask || !keys.mac) {
    return fail(no_variant("host-ip, netmask and mac must all be given for a new tap"));
  }
  TapAddress address;
  const auto ip = [](const Untyped& value, std::string_view key) -> Result<Ipv4Address> {
    return with_context(parse_ipv4(TRY(as_string(value, key))), key);
  };
  address.ip = TRY(ip(*keys.host_ip, "host-ip"));
  address.netmask = TRY(ip(*keys.netmask, "netmask"));
  address.mac = TRY(with_context(parse_mac(TRY(as_string(*keys.mac, "mac"))), "mac"));
  return address;
}

Result<void> take_mode(const ModeKeys& keys, NetRequest& request) {
  const bool by_address = keys.host_ip || keys.netmask;
  const int modes = int{keys.tap_name.has_value()} + int{keys.tap_fd.has_value()} + int{by_address};
  if (modes != 1) {
    return fail(no_variant(modes == 0 ? kModes : "a card has one tap, given in one way"));
  }
  if (by_address) {
    request.network = TRY(tap_address(keys));
    return {};
  }
  if (keys.mac) {
    request.mac = TRY(with_context(parse_mac(TRY(as_string(*keys.mac, "mac"))), "mac"));
  }
  if (keys.tap_name) {
    request.network = NetRequest::TapName{TRY(as_string(*keys.tap_name, "tap-name"))};
    return {};
  }
  const auto number = keys.tap_fd->number;
  if (!number || *number < 0 || *number > std::numeric_limits<int>::max()) {
    return fail(
        no_variant(format_text("tap-fd={} is not the number of a descriptor", keys.tap_fd->text)));
  }
  request.network = NetRequest::TapFd{static_cast<int>(*number)};
  return {};
}

Result<void> check(const NetRequest& request) {
  if (request.vq_pairs == 0 || request.vq_pairs > NetConfig::kMostPairs) {
    return fail(Error::invalid(format_text("vq-pairs={}: a card has 1 to {} queue pairs",
                                           request.vq_pairs, NetConfig::kMostPairs)));
  }
  TRY(mergeable_buffers(request.mrg_rxbuf, request.packed_queue));
  if (request.packed_queue && request.vhost_device) {
    return fail(Error::invalid(
        "vhost-net and packed-queue cannot both be given: the kernel has no packed queues; leave "
        "out one of the two"));
  }
  if (request.pci_address) {
    TRY(with_context(PciAddress::parse(*request.pci_address), "pci-address"));
  }
  return {};
}

NetRequest old_card(NetRequest::Network network, const OldNetOptions& old) {
  NetRequest request{.network = std::move(network), .vq_pairs = old.vq_pairs};
  if (old.vhost_net) request.vhost_device = old.vhost_device.value_or(kVhostNet);
  return request;
}

}  // namespace

Result<Ipv4Address> parse_ipv4(std::string_view text) {
  Ipv4Address address;
  if (::inet_pton(AF_INET, std::string(text).c_str(), address.data()) == 1) return address;
  return fail(Error::invalid(format_text("`{}` is not an IPv4 address like 10.0.0.1", text)));
}

Result<NetRequest> parse_net(std::string_view text) {
  if (auto own = parse_own_net(text)) return *std::move(own);
  NetRequest request;
  ModeKeys keys;
  std::optional<VhostKey> vhost;
  std::optional<bool> mergeable;
  TRY(with_context(
      TRY(KeyValues::parse(text))
          .read({kv_key("tap-name", keys.tap_name), kv_key("tap-fd", keys.tap_fd),
                 kv_key("host-ip", keys.host_ip), kv_key("netmask", keys.netmask),
                 kv_key("mac", keys.mac), kv_key("vq-pairs", request.vq_pairs),
                 kv_key("vhost-net", vhost), kv_key("packed-queue", request.packed_queue),
                 kv_key("pci-address", request.pci_address), kv_key("mrg-rxbuf", mergeable)},
                {.positional = false}),
      "no variant matched"));
  TRY(take_mode(keys, request));
  if (vhost) request.vhost_device = vhost->device;
  request.mrg_rxbuf = mergeable;
  TRY(check(request));
  return request;
}

Result<std::vector<NetRequest>> all_nets(std::vector<NetRequest> nets, const OldNetOptions& old,
                                         uint32_t vcpus) {
  for (const std::string& name : old.tap_names) {
    nets.push_back(old_card(NetRequest::TapName{name}, old));
  }
  for (int number : old.tap_fds) nets.push_back(old_card(NetRequest::TapFd{number}, old));
  if (old.host_ip || old.netmask || old.mac) {
    if (!old.host_ip || !old.netmask || !old.mac) {
      return fail(Error::invalid(
          "--host-ip, --netmask and --mac make a new tap together; give all three, or none"));
    }
    nets.push_back(old_card(TapAddress{*old.host_ip, *old.netmask, *old.mac}, old));
  }
  for (NetRequest& request : nets) {
    TRY(with_context(check(request), "network card"));
    if (request.vq_pairs <= vcpus) continue;
    log::warn("a network card with {} queue pairs for {} vCPUs: it gets one", request.vq_pairs,
              vcpus);
    request.vq_pairs = 1;
  }
  return nets;
}

}  // namespace crosvm
