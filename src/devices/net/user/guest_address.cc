#include "devices/net/user/guest_address.h"

#include <algorithm>

#include "devices/net/user_net_device.h"

namespace crosvm {

IpAddress forward_target(const UserNetConfig& config, const PortForward& forward) {
  if (forward.guest.address) return *forward.guest.address;
  if (!forward.host.address->v6) return config.first_guest4();
  const auto card = user_net_card(config);
  CHECK(card);  // it was checked when it was parsed
  const MacAddress& mac = card->mac;
  IpAddress address = config.ipv6.base;
  const auto number = {static_cast<uint8_t>(mac[0] ^ 2),
                       mac[1],
                       mac[2],
                       uint8_t{0xff},
                       uint8_t{0xfe},
                       mac[3],
                       mac[4],
                       mac[5]};
  std::ranges::copy(number, address.bytes.begin() + 8);
  return address;
}

}  // namespace crosvm
