#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "devices/net/stream_connector.h"
#include "devices/vsock/vsock_host.h"
#include "jail/workers.h"
#include "pci/pci_places.h"
#include "platform/serial_backend.h"
#include "virtio/device_backend.h"
#include "virtio/device_factory.h"
#include "vmm/config.h"
#include "vmm/console_link.h"
#include "vmm/device_request.h"
#include "vmm/vhost_user_frontends.h"

namespace crosvm {

/// The virtio devices of a VM, opened, in their order of creation, which the guest sees in its PCI
/// slots (platform.md 5.1).
struct VirtioDevices {
  struct Device {
    DeviceRequest request;
    std::unique_ptr<OpenedDevice> opened;  ///< null for what `run_here` runs
    uint32_t worker = 0;                   ///< its number, once `start` was called
    DeviceBackend* running = nullptr;      ///< since `run`; whoever has it by now lets it live
    /// Of a device that the kernel or another program runs for us: it has no process of ours.
    /// `interrupt` ends a wait for that program (wait_ready); may be null.
    std::function<Result<std::unique_ptr<DeviceBackend>>(const Fd* interrupt)> run_here = {};
  };
  std::vector<Device> devices;
  /// The consoles among them, which pass bytes on; they outlive the devices.
  std::vector<std::unique_ptr<ConsoleLink>> consoles;
  /// What the socket device has outside of its process, if it is ours; outlives it.
  std::unique_ptr<VsockHost> vsock_host;
  /// Those that connect cards again.
  std::vector<std::unique_ptr<StreamConnector>> connectors;
  /// Behind `devices`: those that other processes serve.
  VhostUserFrontends frontends;

  /// Opens all that `config` asks for, `frontends` aside. Errors name the device, the cause and the
  /// fix. `spawner`, unless it is null, removes the socket files that are made should we be killed.
  static Result<VirtioDevices> open(const Config& config, const SerialHost& host, Spawner* spawner);

  /// Lets each start in a process of its own; waits for none.
  Result<void> start(Workers& workers);
  /// Runs each, in its process, or in this one when `workers` is null. In the same order, with
  /// `frontends` last.
  Result<std::vector<std::unique_ptr<DeviceBackend>>> run(Workers* workers);

  /// As Machine::command_device. After `run`, as long as the backends live.
  void command(std::string_view type, size_t index, DeviceCommand command, CommandDone done);

  /// What each asks of PCI. Errors: invalid_argument for an address that is none.
  Result<std::vector<PciWish>> wishes() const;

 private:
  Result<void> add_vsock(const VsockConfig& config, EventLoop& loop, Spawner* spawner);
};

}  // namespace crosvm
