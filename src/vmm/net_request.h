#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "devices/net/tap.h"

namespace crosvm {

/// A network card that the user asked for (cli.md 1.5, NetParameters): nothing is opened yet.
struct NetRequest {
  struct TapName {
    std::string name;
  };
  struct TapFd {
    int number = 0;
  };
  /// What the guest's card is connected with; an address makes a new tap.
  using Network = std::variant<TapName, TapFd, TapAddress>;

  Network network;
  std::optional<MacAddress> mac{};            ///< the guest's; none: chosen
  uint16_t vq_pairs = 1;                      ///< 1 to NetConfig::kMostPairs
  std::optional<std::string> vhost_device{};  ///< the kernel moves the packets, by this device
  bool packed_queue = false;
  std::optional<bool> mrg_rxbuf{};  ///< none: whenever it can be
  std::optional<std::string> pci_address{};
};

}  // namespace crosvm
