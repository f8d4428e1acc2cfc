#include "devices/vsock/vsock_config.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <optional>
#include <span>

#include "base/format.h"

namespace crosvm {

static constexpr std::array<KvName<VsockConfig::Backend>, 2> kv_names(VsockConfig::Backend) {
  return {{{"kernel", VsockConfig::Backend::kKernel}, {"user", VsockConfig::Backend::kUser}}};
}

namespace {

constexpr uint16_t kLargestQueue = 32768;
constexpr std::string_view kSeqpacket = "/seqpacket";

Error bad_rule(std::string_view text) {
  return Error::invalid(
      format_text("`{}` is not PORT:PATH, or PORT/seqpacket:PATH, as 1024:/run/agent.sock is; a "
                  "port is a number from 1 to {}",
                  text, UINT32_MAX - 1));
}

Result<VsockRule> parse_rule(std::string_view text) {
  VsockRule rule;
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return fail(bad_rule(text));
  std::string_view port = text.substr(0, colon);
  rule.path = text.substr(colon + 1);
  rule.seqpacket = port.ends_with(kSeqpacket);
  if (rule.seqpacket) port.remove_suffix(kSeqpacket.size());
  const char* end = port.data() + port.size();
  const auto [stopped, code] = std::from_chars(port.data(), end, rule.port);
  const bool good = code == std::errc() && stopped == end && rule.port != 0 &&
                    rule.port != UINT32_MAX && !rule.path.empty() &&
                    rule.path.find('\0') == std::string::npos;
  if (!good) return fail(bad_rule(text));
  return rule;
}

/// The guest's packets tell a port, and which kind of socket it is.
Result<void> check_ports(const std::vector<VsockRule>& connect) {
  for (size_t i = 0; i < connect.size(); ++i) {
    const auto before = std::span(connect).first(i);
    if (std::ranges::find(before, connect[i].port, &VsockRule::port) == before.end()) continue;
    return fail(Error::invalid(format_text(
        "connect: port {} is given twice; give each port to one socket", connect[i].port)));
  }
  return {};
}

Result<void> check_paths(const std::vector<VsockRule>& listen) {
  for (size_t i = 0; i < listen.size(); ++i) {
    const auto before = std::span(listen).first(i);
    if (std::ranges::find(before, listen[i].path, &VsockRule::path) == before.end()) continue;
    return fail(Error::invalid(
        format_text("listen: path {} is given twice; listen for each port at a path of its own",
                    listen[i].path)));
  }
  return {};
}

Result<void> check(const VsockConfig& config) {
  TRY(check_guest_cid(config.cid));
  for (uint16_t size : config.queue_sizes) {
    if (std::has_single_bit(size) && size <= kLargestQueue) continue;
    return fail(Error::invalid(format_text(
        "max-queue-sizes: {} is not a power of two from 1 to {}; use 256", size, kLargestQueue)));
  }
  TRY(check_ports(config.connect));
  return check_paths(config.listen);
}

std::string quoted(std::string_view value) {
  std::string text = "\"";
  for (char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + '"';
}

std::string rules_text(std::string_view key, const std::vector<VsockRule>& rules) {
  if (rules.empty()) return {};
  std::string text = format_text(",{}=[", key);
  for (const VsockRule& rule : rules) {
    if (&rule != &rules.front()) text += ',';
    const std::string_view kind = rule.seqpacket ? kSeqpacket : "";
    text += quoted(format_text("{}{}:{}", rule.port, kind, rule.path));
  }
  return text + ']';
}

}  // namespace

Result<void> check_guest_cid(uint64_t cid) {
  constexpr uint64_t kFirst = 3;
  constexpr uint64_t kLast = UINT32_MAX - 1;
  if (cid >= kFirst && cid <= kLast) return {};
  std::string_view why = "context IDs have 32 bits";
  if (cid == 0) why = "it is the hypervisor's";
  if (cid == 1) why = "it is every machine's own";
  if (cid == VsockConfig::kHostCid) why = "it is the host's";
  if (cid == UINT32_MAX) why = "it stands for any";
  return fail(Error::invalid(
      format_text("cid={}: no guest can have this context ID, {}; use one from {} to {}", cid, why,
                  kFirst, kLast)));
}

Result<std::vector<VsockRule>> VsockConfig::parse_rules(std::string_view key,
                                                        const std::vector<std::string>& texts) {
  std::vector<VsockRule> rules;
  for (const std::string& text : texts) rules.push_back(TRY(with_context(parse_rule(text), key)));
  if (rules.size() <= VsockConfig::kMostRules) return rules;
  return fail(Error::invalid(format_text("{}: {} sockets; a device has at most {}", key,
                                         rules.size(), VsockConfig::kMostRules)));
}

Result<VsockConfig> VsockConfig::parse(const KeyValues& text) {
  VsockConfig config;
  std::optional<Backend> backend;
  std::optional<std::string> device;
  std::vector<std::string> connect;
  std::vector<std::string> listen;
  TRY(text.read({kv_key("cid", config.cid).require(), kv_key("device", device),
                 kv_key("max-queue-sizes", config.queue_sizes), kv_key("backend", backend),
                 kv_key("connect", connect), kv_key("listen", listen)}));
  config.backend = backend.value_or(Backend::kKernel);
  if (device && config.backend == Backend::kUser) {
    return fail(Error::invalid(
        "device is the kernel's, which backend=user does without; leave out one of the two"));
  }
  if ((!connect.empty() || !listen.empty()) && config.backend == Backend::kKernel) {
    return fail(Error::invalid(
        "connect and listen are for backend=user; the kernel's device connects the guest with all "
        "AF_VSOCK sockets of the host: add backend=user, or leave them out"));
  }
  config.device = device.value_or(std::string(kDevice));
  config.connect = TRY(parse_rules("connect", connect));
  config.listen = TRY(parse_rules("listen", listen));
  TRY(check(config));
  return config;
}

std::string VsockConfig::to_text() const {
  std::string text = format_text("cid={},max-queue-sizes=[{},{},{}]", cid, queue_sizes[0],
                                 queue_sizes[1], queue_sizes[2]);
  if (backend == Backend::kKernel) return text + ",device=" + quoted(device);
  return text + ",backend=user" + rules_text("connect", connect) + rules_text("listen", listen);
}

}  // namespace crosvm
