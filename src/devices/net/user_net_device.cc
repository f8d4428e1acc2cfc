#include "devices/net/user_net_device.h"

namespace crosvm {

Result<NetConfig> user_net_card(const UserNetConfig& config) {
  NetConfig card;
  card.network = "user";
  card.mac = config.mac.empty() ? stable_mac("the user network of crosvm")
                                : TRY(with_context(parse_mac(config.mac), "mac"));
  card.mtu = config.mtu;
  card.mrg_rxbuf = config.mrg_rxbuf;
  card.packed_queue = config.packed_queue;
  return card;
}

Result<UserNetFactory::Config> UserNetFactory::parse(const KeyValues& text) {
  auto config = TRY(UserNetConfig::parse(text));
  TRY(user_net_card(config));
  return config;
}

Result<std::unique_ptr<VirtioDevice>> UserNetFactory::create(const Config&, Resources,
                                                             const DeviceContext&) {
  return fail(Error(std::errc::not_supported,
                    "--net user runs in a process of its own, which --disable-sandbox does not "
                    "start: leave that option out, or use a tap"));
}

}  // namespace crosvm
