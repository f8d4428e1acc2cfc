#include "vmm/virtio_devices.h"

#include <utility>

#include "base/format.h"
#include "devices/all_devices.h"
#include "devices/net/vhost_user_net.h"
#include "devices/vsock/vhost_vsock.h"
#include "devices/vsock/vsock_device.h"
#include "virtio/local_backend.h"
#include "vmm/end_signals.h"
#include "vmm/net_link.h"

namespace crosvm {
namespace {

Result<PciWish> wish_for(const std::string& label, const std::optional<std::string>& address) {
  PciWish wish{.label = label};
  if (address) {
    wish.address =
        TRY(with_context(PciAddress::parse(*address), format_text("{}: pci-address", label)));
  }
  return wish;
}

Result<VirtioDevices::Device> open_device(DeviceRequest request) {
  const DeviceType* type = find_device(request.type);
  CHECK(type != nullptr);
  auto opened = TRY(with_context(type->open(request.text), request.name));
  return VirtioDevices::Device{.request = std::move(request), .opened = std::move(opened)};
}

Result<VirtioDevices::Device> open_net(const NetRequest& request, size_t number,
                                       std::string_view vm, EventLoop& loop,
                                       std::vector<std::unique_ptr<StreamConnector>>& connectors) {
  const std::string name = format_text("net{}", number);
  NetLink link = TRY(with_context(NetLink::open(request, name, vm), name));
  VirtioDevices::Device device{.request = std::move(link.request),
                               .opened = std::move(link.device)};
  if (link.connector) {
    connectors.push_back(
        TRY(StreamConnector::create(loop, link.config.network, std::move(link.connector))));
  }
  if (link.kernel) {
    // Shared, as a function must be copyable.
    auto kernel = std::make_shared<VhostNetResources>(*std::move(link.kernel));
    device.run_here = [name, config = link.config, kernel, &loop](const Fd*) {
      return run_vhost_net(loop, name, config, std::move(*kernel));
    };
  }
  if (link.vhost_user) {
    auto socket = std::make_shared<Fd>(std::move(link.vhost_user));
    device.run_here = [name, config = link.config, socket, &loop](const Fd* interrupt) {
      return run_vhost_user_net(loop, name, config, std::move(*socket), interrupt);
    };
  }
  return device;
}

/// Its socket files go even if we are killed.
Result<VsockHost::Opened> open_vsock_host(const VsockConfig& config, Spawner* spawner) {
  const EndSignals::Held held;
  VsockHost::Opened opened = TRY(VsockHost::open(config));
  for (const std::string& path : opened.host->socket_files()) {
    if (spawner) TRY(spawner->guard_socket(path));
  }
  return opened;
}

}  // namespace

Result<VirtioDevices> VirtioDevices::open(const Config& config, const SerialHost& host,
                                          Spawner* spawner) {
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
  const std::string vm = config.name.value_or(config.socket.value_or(""));
  for (size_t i = 0; i < config.nets.size(); ++i) {
    all.devices.push_back(TRY(open_net(config.nets[i], i, vm, host.loop, all.connectors)));
  }
  if (config.vsock) TRY(with_context(all.add_vsock(*config.vsock, host.loop, spawner), "vsock"));
  return all;
}

Result<void> VirtioDevices::add_vsock(const VsockConfig& config, EventLoop& loop,
                                      Spawner* spawner) {
  DeviceRequest request{.type = "vsock", .name = "vsock", .text = config.to_text()};
  if (config.backend == VsockConfig::Backend::kUser) {
    VsockHost::Opened opened = TRY(open_vsock_host(config, spawner));
    TRY(opened.host->serve(loop));
    vsock_host = std::move(opened.host);
    auto device = TRY(opened_device<VsockFactory>(request.text, std::move(opened.resources)));
    devices.push_back({.request = std::move(request), .opened = std::move(device)});
    return {};
  }
  auto kernel = std::make_shared<Fd>(TRY(open_vhost_vsock(config)));
  devices.push_back({.request = std::move(request),
                     .opened = nullptr,
                     .run_here = [config, kernel, &loop](const Fd*) {
                       return run_vhost_vsock(loop, config, std::move(*kernel));
                     }});
  return {};
}

Result<void> VirtioDevices::start(Workers& workers) {
  // The spawner leaves the host's network when it starts the first that is not to be there.
  for (const bool host_network : {true, false}) {
    for (Device& device : devices) {
      const DeviceRequest& request = device.request;
      const DeviceType& type = *find_device(request.type);
      if (device.run_here || type.host_network != host_network) continue;
      device.worker = TRY(workers.start(type, request.name, request.text, *device.opened));
      device.opened.reset();
    }
  }
  return {};
}

Result<std::vector<std::unique_ptr<DeviceBackend>>> VirtioDevices::run(Workers* workers) {
  std::vector<std::unique_ptr<DeviceBackend>> backends;
  for (Device& device : devices) {
    if (device.run_here) {
      backends.push_back(TRY(device.run_here(frontends.interrupt())));
    } else if (workers) {
      backends.push_back(TRY(workers->finish(device.worker)));
    } else {
      backends.push_back(TRY(LocalBackend::create(device.request.name, std::move(device.opened))));
    }
  }
  for (size_t i = 0; i < devices.size(); ++i) devices[i].running = backends[i].get();
  TRY(frontends.finish(backends));
  return backends;
}

void VirtioDevices::command(std::string_view type, size_t index, DeviceCommand command,
                            CommandDone done) {
  size_t seen = 0;
  for (const Device& device : devices) {
    if (device.request.type != type || seen++ != index) continue;
    return device.running->command(std::move(command), std::move(done));
  }
  done(fail(Error(std::errc::no_such_device,
                  format_text("this VM has {} devices of the kind '{}', and no number {}: they are "
                              "counted from 0 in the order of the command line, without those that "
                              "other programs serve (--vhost-user)",
                              seen, type, index))));
}

Result<std::vector<PciWish>> VirtioDevices::wishes() const {
  std::vector<PciWish> wishes;
  for (const Device& device : devices) {
    wishes.push_back(TRY(wish_for(device.request.name, device.request.pci_address)));
  }
  for (const VhostUserRequest& request : frontends.requests()) {
    wishes.push_back(TRY(wish_for(request.name(), request.pci_address)));
  }
  return wishes;
}

}  // namespace crosvm
