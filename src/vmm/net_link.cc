#include "vmm/net_link.h"

#include <sys/socket.h>

#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "base/socket_pair.h"
#include "devices/net/net_device.h"
#include "devices/net/passt_net_device.h"
#include "devices/net/stream_dialer.h"
#include "devices/net/user_net_device.h"

namespace crosvm {
namespace {

struct Opener {
  uint16_t pairs;
  Result<Tap> operator()(const NetRequest::TapName& tap) const {
    return attach_tap(tap.name, pairs);
  }
  Result<Tap> operator()(const NetRequest::TapFd& tap) const {
    return adopt_tap(tap.number, pairs);
  }
  Result<Tap> operator()(const TapAddress& address) const { return make_tap(address, pairs); }
  Result<Tap> operator()(const auto&) const { return fail(Error::invalid("this is no tap")); }
};

/// What tells the network of a card from that of another VM's card. Not the name of a tap that we
/// make: which it is depends on what else there is.
std::string identity(const NetRequest& request, const Tap& tap) {
  if (const auto* address = std::get_if<TapAddress>(&request.network)) {
    return format_text("{}.{}.{}.{} {}", address->ip[0], address->ip[1], address->ip[2],
                       address->ip[3], mac_text(address->mac));
  }
  return tap.name;
}

Result<NetLink> open_user(const UserNetConfig& config, const std::string& name) {
  NetLink link;
  link.config = TRY(user_net_card(config));
  link.request = {
      .type = std::string(UserNetFactory::kName), .name = name, .text = config.to_text()};
  if (!config.pci_address.empty()) link.request.pci_address = config.pci_address;
  link.device = TRY(opened_device<UserNetFactory>(link.request.text, {}));
  return link;
}

Result<NetLink> open_passt(const NetRequest& request, const NetRequest::Passt& passt,
                           const std::string& name, std::string_view vm) {
  NetLink link;
  link.config = {
      .network = passt.socket,
      .mac = request.mac.value_or(stable_mac(format_text("{}\n{}\n{}", vm, name, passt.socket))),
      .mtu = passt.mtu,
      .mrg_rxbuf = TRY(mergeable_buffers(request.mrg_rxbuf, request.packed_queue)),
      .packed_queue = request.packed_queue};
  link.request = {.type = std::string(PasstNetFactory::kName),
                  .name = name,
                  .text = link.config.to_text(),
                  .pci_address = request.pci_address};
  if (passt.vhost_user) {
    link.vhost_user = TRY(connect_stream(passt.socket, "passt --vhost-user --socket"));
    return link;
  }
  FdPair pair = TRY(make_socket_pair(SOCK_SEQPACKET, "a card on passt"));
  link.connector = std::move(pair.ours);
  PasstNetResources resources = TRY(PasstNetFactory::open(link.config));
  resources.connector = std::move(pair.theirs);
  link.device = TRY(opened_device<PasstNetFactory>(link.request.text, std::move(resources)));
  return link;
}

}  // namespace

Result<NetLink> NetLink::open(const NetRequest& request, const std::string& name,
                              std::string_view vm) {
  if (const auto* user = std::get_if<UserNetConfig>(&request.network)) {
    return open_user(*user, name);
  }
  if (const auto* passt = std::get_if<NetRequest::Passt>(&request.network)) {
    return open_passt(request, *passt, name, vm);
  }
  Tap tap = TRY(std::visit(Opener{request.vq_pairs}, request.network));
  NetLink link;
  link.config = {.network = tap.name,
                 .mac = request.mac.value_or(
                     stable_mac(format_text("{}\n{}\n{}", vm, name, identity(request, tap)))),
                 .vq_pairs = request.vq_pairs,
                 .mtu = tap.mtu,
                 .mrg_rxbuf = TRY(mergeable_buffers(request.mrg_rxbuf, request.packed_queue)),
                 .packed_queue = request.packed_queue};
  log::info("{}: on tap {}, MAC address {}", name, tap.name, mac_text(link.config.mac));
  link.request = {.type = std::string(NetFactory::kName),
                  .name = name,
                  .text = link.config.to_text(),
                  .pci_address = request.pci_address};
  if (request.vhost_device) {
    link.kernel = TRY(open_vhost_net(*request.vhost_device, std::move(tap)));
  } else {
    link.device = TRY(opened_device<NetFactory>(
        link.request.text,
        NetResources{.taps = std::move(tap.queues), .memory = TRY(NetMemory::create())}));
  }
  return link;
}

}  // namespace crosvm
