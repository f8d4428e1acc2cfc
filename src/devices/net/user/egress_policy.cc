#include "devices/net/user/egress_policy.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "base/result.h"

namespace crosvm {
namespace {

/// What nobody means who gives a guest a network.
constexpr std::string_view kDenied[] = {
    "0.0.0.0/8",           // "this host": Linux takes it for loopback
    "127.0.0.0/8",         // loopback
    "169.254.0.0/16",      // link-local, with the metadata of most clouds
    "100.100.100.200/32",  // metadata of Alibaba
    "168.63.129.16/32",    // the platform's address in Azure
    "192.0.0.192/32",      // metadata of Oracle
    "224.0.0.0/4",         // multicast
    "240.0.0.0/4",         // reserved, and broadcast
    "::/96",               // unspecified, loopback, and addresses of IPv4 as they were once written
    "::ffff:0:0/96",       // addresses of IPv4, which a socket would go to
    "fe80::/10",           // link-local
    "fec0::/10",           // site-local
    "ff00::/8",            // multicast
    "fd00:ec2::/32",       // metadata and credentials of Amazon
    "fd20:ce::254/128",    // metadata of Google
    "fd00:c1::a9fe:a9fe/128",  // metadata of Oracle
    "fd00:42::42/128",         // metadata of Scaleway
};

/// Where an address of IPv4 stands in one of IPv6 that leads there.
struct Embedding {
  std::string_view range;
  size_t at;
  uint8_t flip = 0;  // each byte is XORed with it
};
constexpr Embedding kEmbeddings[] = {
    {"::/96", 12},          {"::ffff:0:0/96", 12}, {"64:ff9b::/96", 12},
    {"64:ff9b:1::/48", 12}, {"2002::/16", 2},      {"2001::/32", 12, 0xff},
};

IpRange range_of(std::string_view text) {
  auto range = IpRange::parse(text);
  CHECK(range.has_value());
  return *range;
}

struct KnownEmbedding {
  IpRange range;
  size_t at;
  uint8_t flip;
};
const std::vector<KnownEmbedding>& known_embeddings() {
  static const std::vector<KnownEmbedding> all = [] {
    std::vector<KnownEmbedding> list;
    for (const Embedding& each : kEmbeddings) {
      list.push_back({range_of(each.range), each.at, each.flip});
    }
    return list;
  }();
  return all;
}

std::optional<IpAddress> embedded_v4(const IpAddress& address) {
  if (address.is_zero() || address == *IpAddress::parse("::1")) return std::nullopt;
  for (const KnownEmbedding& each : known_embeddings()) {
    if (!each.range.contains(address)) continue;
    IpAddress v4;
    for (size_t i = 0; i < 4; ++i) {
      v4.bytes[i] = static_cast<uint8_t>(address.bytes[each.at + i] ^ each.flip);
    }
    return v4;
  }
  return std::nullopt;
}

}  // namespace

EgressPolicy::EgressPolicy(std::vector<EgressRule> allow, std::vector<EgressRule> deny) {
  for (EgressRule& rule : allow) rules_.push_back({std::move(rule), true});
  for (EgressRule& rule : deny) rules_.push_back({std::move(rule), false});
  for (std::string_view range : kDenied) rules_.push_back({{range_of(range), {}}, false, true});
  std::ranges::sort(rules_, {}, [](const Rule& rule) {
    // What the user says of just such a range holds.
    return std::tuple(-rule.where.range.prefix, rule.where.ports.last - rule.where.ports.first,
                      rule.built_in, rule.allowed);
  });
}

bool EgressPolicy::allows_literally(const IpAddress& destination, uint16_t port) const {
  for (const Rule& rule : rules_) {
    const bool ports = port == 0 ? rule.where.ports.all() : rule.where.ports.contains(port);
    if (ports && rule.where.range.contains(destination)) return rule.allowed;
  }
  return true;
}

bool EgressPolicy::allows(const IpAddress& destination, uint16_t port) const {
  if (!allows_literally(destination, port)) return false;
  if (!destination.v6) return true;
  const auto v4 = embedded_v4(destination);
  return !v4 || allows_literally(*v4, port);
}

bool EgressPolicy::may_reach_loopback() const {
  const auto loopback4 = range_of("127.0.0.0/8");
  const auto loopback6 = range_of("::1/128");
  return std::ranges::any_of(rules_, [&](const Rule& rule) {
    const IpRange& range = rule.where.range;
    return rule.allowed && ((range.prefix >= 8 && loopback4.contains(range.base)) ||
                            (range.prefix >= 96 && range.contains(loopback6.base)));
  });
}

}  // namespace crosvm
