#include "vmm/virtio_devices.h"

#include <utility>

#include "base/format.h"
#include "devices/all_devices.h"

namespace crosvm {
namespace {

Result<VirtioDevices::Device> open_device(DeviceRequest request) {
  const DeviceType* type = find_device(request.type);
  CHECK(type != nullptr);
  auto opened = TRY(with_context(type->open(request.text), request.name));
  return VirtioDevices::Device{.request = std::move(request), .opened = std::move(opened)};
}

}  // namespace

Result<VirtioDevices> VirtioDevices::open(const Config& config, const SerialHost& host) {
  VirtioDevices all;
  for (const SerialConfig& port : config.serial) {
    if (port.hardware != SerialConfig::Hardware::kVirtioConsole) continue;
    auto link = TRY(ConsoleLink::open(port, all.consoles.size(), host));
    all.devices.push_back({.request = link->request(), .opened = link->take_device()});
    all.consoles.push_back(std::move(link));
  }
  for (const DeviceRequest& disk : config.disks) all.devices.push_back(TRY(open_device(disk)));
  if (config.rng) {
    all.devices.push_back(TRY(open_device({.type = "rng", .name = "rng", .text = ""})));
  }
  return all;
}

Result<std::vector<PciWish>> VirtioDevices::wishes() const {
  std::vector<PciWish> wishes;
  for (const Device& device : devices) {
    PciWish wish{.label = device.request.name};
    if (const auto& address = device.request.pci_address) {
      wish.address = TRY(with_context(PciAddress::parse(*address),
                                      format_text("{}: pci-address", device.request.name)));
    }
    wishes.push_back(std::move(wish));
  }
  return wishes;
}

}  // namespace crosvm
