#pragma once

#include <optional>
#include <string>

namespace crosvm {

/// One virtio device that the user asked for.
struct DeviceRequest {
  std::string type;  ///< its name in all_devices()
  std::string name;  ///< names it in logs and messages: "block0"
  std::string text;  ///< its configuration, in the key-value grammar, as its factory parses it
  std::optional<std::string> pci_address = std::nullopt;  ///< where it must lie; none: anywhere
};

}  // namespace crosvm
