#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "devices/net/tap.h"
#include "devices/net/user_net_config.h"

namespace crosvm {

/// A network card that the user asked for (cli.md 1.5, NetParameters): nothing is opened yet.
struct NetRequest {
  struct TapName {
    std::string name;
  };
  struct TapFd {
    int number = 0;
  };
  struct Passt {
    std::string socket;       ///< its path
    uint16_t mtu = 0;         ///< 0: not told
    bool vhost_user = false;  ///< not by its stream of frames
  };
  /// What the guest's card is connected with; an address makes a new tap. The user network has its
  /// own mac and the like.
  using Network = std::variant<TapName, TapFd, TapAddress, Passt, UserNetConfig>;

  Network network;
  std::optional<MacAddress> mac{};            ///< the guest's; none: chosen
  uint16_t vq_pairs = 1;                      ///< 1 to NetConfig::kMostPairs
  std::optional<std::string> vhost_device{};  ///< the kernel moves the packets, by this device
  bool packed_queue = false;
  std::optional<bool> mrg_rxbuf{};  ///< none: whenever it can be
  std::optional<std::string> pci_address{};
};

}  // namespace crosvm
