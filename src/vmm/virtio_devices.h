#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "pci/pci_places.h"
#include "platform/serial_backend.h"
#include "virtio/device_factory.h"
#include "vmm/config.h"
#include "vmm/console_link.h"
#include "vmm/device_request.h"

namespace crosvm {

/// The virtio devices of a VM, opened and not yet running, in their order of creation, which the
/// guest sees in its PCI slots (platform.md 5.1).
struct VirtioDevices {
  struct Device {
    DeviceRequest request;
    std::unique_ptr<OpenedDevice> opened;
  };
  std::vector<Device> devices;
  /// The consoles among them, which pass bytes on; they outlive the devices.
  std::vector<std::unique_ptr<ConsoleLink>> consoles;

  /// Opens all that `config` asks for. Errors name the device, the cause and the fix.
  static Result<VirtioDevices> open(const Config& config, const SerialHost& host);

  /// What each asks of PCI. Errors: invalid_argument for an address that is none.
  Result<std::vector<PciWish>> wishes() const;
};

}  // namespace crosvm
