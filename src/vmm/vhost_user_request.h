#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace crosvm {

/// One `--vhost-user` (cli.md 1.5, VhostUserFrontend): a device that another process serves.
struct VhostUserRequest {
  std::string type;          ///< "block"
  uint32_t device_type = 0;  ///< virtio 1.3 §5
  std::string socket;        ///< path where the back-end listens, or /proc/self/fd/N
  /// A power of two. A back-end cannot say how much it takes; this much each one does.
  uint16_t max_queue_size = 256;
  std::optional<std::string> pci_address = std::nullopt;

  /// Names it in logs and messages.
  std::string name() const { return "vu-" + type; }
};

}  // namespace crosvm
