#include "vmm/net_link.h"

#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "devices/net/net_device.h"

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

}  // namespace

Result<NetLink> NetLink::open(const NetRequest& request, const std::string& name,
                              std::string_view vm) {
  Tap tap = TRY(std::visit(Opener{request.vq_pairs}, request.network));
  NetLink link;
  link.config = {.network = tap.name,
                 .mac = request.mac.value_or(
                     stable_mac(format_text("{}\n{}\n{}", vm, name, identity(request, tap)))),
                 .vq_pairs = request.vq_pairs,
                 .mtu = tap.mtu,
                 .mrg_rxbuf = request.mrg_rxbuf.value_or(!request.packed_queue),
                 .packed_queue = request.packed_queue};
  log::info("{}: on tap {}, MAC address {}", name, tap.name, mac_text(link.config.mac));
  link.request = {.type = std::string(NetFactory::kName),
                  .name = name,
                  .text = link.config.to_text(),
                  .pci_address = request.pci_address};
  if (request.vhost_device) {
    link.kernel = TRY(open_vhost_net(*request.vhost_device, std::move(tap)));
  } else {
    link.device = TRY(
        opened_device<NetFactory>(link.request.text, NetResources{.taps = std::move(tap.queues)}));
  }
  return link;
}

}  // namespace crosvm
