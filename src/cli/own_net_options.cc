#include "cli/own_net_options.h"

#include "base/key_value.h"
#include "devices/net/net_config.h"
#include "devices/net/user_net_device.h"
#include "pci/pci_address.h"

namespace crosvm {
namespace {

/// What stands behind `word` and a comma, if the text begins with that word.
std::optional<std::string_view> behind(std::string_view text, std::string_view word) {
  if (!text.starts_with(word)) return std::nullopt;
  text.remove_prefix(word.size());
  if (text.empty()) return text;
  if (text.front() != ',') return std::nullopt;
  return text.substr(1);
}

Result<void> check_pci_address(const std::string& address) {
  if (!address.empty()) TRY(with_context(PciAddress::parse(address), "pci-address"));
  return {};
}

Result<NetRequest> parse_user(std::string_view text) {
  auto config = TRY(UserNetFactory::parse(TRY(KeyValues::parse(text))));
  TRY(check_pci_address(config.pci_address));
  return NetRequest{.network = std::move(config)};
}

Result<NetRequest> parse_passt(std::string_view text) {
  NetRequest::Passt passt;
  NetRequest request;
  std::optional<std::string> mac;
  std::optional<bool> mergeable;
  TRY(read_key_values(
      text,
      {kv_key("socket", passt.socket).require(), kv_key("mac", mac), kv_key("mtu", passt.mtu),
       kv_key("mrg-rxbuf", mergeable), kv_key("packed-queue", request.packed_queue),
       kv_key("vhost-user", passt.vhost_user), kv_key("pci-address", request.pci_address)},
      {.positional = false}));
  if (passt.socket.empty()) return fail(Error::invalid("socket: give the path of passt's socket"));
  constexpr uint16_t kLeastMtu = 68;  // virtio 1.3 §5.1.4.1
  if (passt.mtu != 0 && passt.mtu < kLeastMtu) {
    return fail(Error::invalid("mtu: give at least 68 bytes"));
  }
  if (passt.vhost_user && request.packed_queue) {
    return fail(Error::invalid(
        "vhost-user and packed-queue cannot both be given: where a packed queue stood is not known "
        "when passt goes; leave out one of the two"));
  }
  TRY(mergeable_buffers(mergeable, request.packed_queue));
  if (mac) request.mac = TRY(with_context(parse_mac(*mac), "mac"));
  TRY(check_pci_address(request.pci_address.value_or("")));
  request.mrg_rxbuf = mergeable;
  request.network = std::move(passt);
  return request;
}

}  // namespace

std::optional<Result<NetRequest>> parse_own_net(std::string_view text) {
  if (const auto keys = behind(text, "user")) return with_context(parse_user(*keys), "user");
  if (const auto keys = behind(text, "passt")) return with_context(parse_passt(*keys), "passt");
  return std::nullopt;
}

}  // namespace crosvm
