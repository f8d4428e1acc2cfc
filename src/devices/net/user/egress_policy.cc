#include "devices/net/user/egress_policy.h"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "base/result.h"

namespace crosvm {
namespace {

/// A NAT64 of somebody's own (RFC 8215).
constexpr std::string_view kOwnNat64 = "64:ff9b:1::/48";

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
    kOwnNat64,             // IPv4 stands where he has put it
    "fe80::/10",           // link-local
    "fec0::/10",           // site-local
    "ff00::/8",            // multicast
    "fd00:ec2::/32",       // metadata and credentials of Amazon
    "fd20:ce::254/128",    // metadata of Google
    "fd00:c1::a9fe:a9fe/128",  // metadata of Oracle
    "fd00:42::42/128",         // metadata of Scaleway
};

/// Where an address of IPv4 stands in one of IPv6 that leads there: which byte is each of its four.
struct Embedding {
  std::string_view range;
  std::array<uint8_t, 4> at;
  uint8_t flip = 0;          // each byte is XORed with it
  bool one_of_more = false;  // it may stand elsewhere
};
/// RFC 6052 §2.2 leaves it to the length of a NAT64's prefix; byte 8 is always skipped.
constexpr Embedding kEmbeddings[] = {
    {"::/96", {12, 13, 14, 15}},
    {"::ffff:0:0/96", {12, 13, 14, 15}},
    {"64:ff9b::/96", {12, 13, 14, 15}},
    {kOwnNat64, {6, 7, 9, 10}, 0, true},
    {kOwnNat64, {7, 9, 10, 11}, 0, true},
    {kOwnNat64, {9, 10, 11, 12}, 0, true},
    {kOwnNat64, {12, 13, 14, 15}, 0, true},
    {"2002::/16", {2, 3, 4, 5}},
    {"2001::/32", {12, 13, 14, 15}, 0xff},
};

IpRange range_of(std::string_view text) {
  auto range = IpRange::parse(text);
  CHECK(range.has_value());
  return *range;
}

struct KnownEmbedding {
  IpRange range;
  Embedding how;
};
const std::vector<KnownEmbedding>& known_embeddings() {
  static const std::vector<KnownEmbedding> all = [] {
    std::vector<KnownEmbedding> list;
    for (const Embedding& each : kEmbeddings) list.push_back({range_of(each.range), each});
    return list;
  }();
  return all;
}

/// The addresses of IPv4 that this one may lead to.
std::vector<IpAddress> embedded_v4(const IpAddress& address) {
  std::vector<IpAddress> found;
  if (address.is_zero() || address.is_loopback()) return found;
  for (const KnownEmbedding& each : known_embeddings()) {
    if (!each.range.contains(address)) continue;
    IpAddress v4;
    for (size_t i = 0; i < 4; ++i) {
      v4.bytes[i] = static_cast<uint8_t>(address.bytes[each.how.at[i]] ^ each.how.flip);
    }
    // Where none stands there are zeros, mostly.
    if (!each.how.one_of_more || v4.bytes[0] != 0) found.push_back(v4);
  }
  return found;
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
  return std::ranges::all_of(embedded_v4(destination),
                             [&](const IpAddress& v4) { return allows_literally(v4, port); });
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
