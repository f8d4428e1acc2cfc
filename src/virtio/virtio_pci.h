#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/log_limit.h"
#include "base/result.h"
#include "hypervisor/hypervisor.h"
#include "memory/guest_memory.h"
#include "pci/pci_config_space.h"
#include "pci/pci_device.h"
#include "pci/pci_interrupts.h"
#include "virtio/device_backend.h"
#include "virtio/virtio_pci_layout.h"
#include "virtio/virtio_pci_notify.h"
#include "virtio/virtio_pci_registers.h"

namespace crosvm {

/// The PCI transport of every virtio device (virtio 1.3 §4.1, devices.md 3.5), modern only.
///
/// The driver's side is the registers, the device's side a DeviceBackend. What the driver set up
/// goes to the backend when it sets DRIVER_OK, and queues that it enables later as they come. A
/// reset takes its time: device_status keeps its value until the backend is done, and what the
/// driver does in between is ignored.
///
/// Locks, in this order: PciRoot's, `access_`, `mutex_`, then those of PciInterrupts and of the Vm.
/// An access decides under both what the backend is to do, and tells it under `access_` alone: the
/// backend's callbacks, which come on any thread and perhaps at once, take `mutex_` alone and call
/// no backend. So the verbs go out in the order of the accesses, and no vCPU waits for a device.
class VirtioPci : public PciDevice, private BackendListener {
 public:
  struct Options {
    std::optional<virtio_pci::Intx> intx;  ///< none (`--disable-virtio-intx`): no interrupt pin
    std::optional<virtio_pci::SharedMemory> shared_memory;
  };
  /// The interrupts of a device: a vector for each queue and one for configuration changes, as far
  /// as the table holds them.
  static PciInterrupts::Options interrupts_for(const DeviceInfo& info,
                                               std::optional<uint32_t> intx_gsi);

  /// `memory` and `vm` outlive this. `interrupts` were made with `interrupts_for`. Errors:
  /// invalid_argument naming the device when it has more queues or a longer configuration than fit,
  /// else the errno of eventfd.
  static Result<std::shared_ptr<VirtioPci>> create(std::unique_ptr<DeviceBackend> backend,
                                                   const GuestMemory& memory, Vm& vm,
                                                   std::unique_ptr<PciInterrupts> interrupts,
                                                   const Options& options);
  ~VirtioPci() override;

  std::string_view label() const override { return name_; }
  PciConfigSpace& config() override { return config_space_; }
  void read_bar(size_t bar, uint64_t offset, std::span<std::byte> data) override;
  void write_bar(size_t bar, uint64_t offset, std::span<const std::byte> data) override;
  void config_reading(size_t index) override;
  void config_written(size_t index) override;
  void bar_mapped(size_t bar, std::optional<uint64_t> address) override;

 private:
  /// What the backend is to be told, in order, with `mutex_` released.
  using Calls = std::vector<std::move_only_function<void()>>;
  struct Window {
    uint64_t offset;
    size_t length;
  };

  VirtioPci(std::unique_ptr<DeviceBackend> backend, const GuestMemory& memory,
            std::unique_ptr<PciInterrupts> interrupts, virtio_pci::Notifications notifications);

  void config_changed(std::vector<std::byte> config) override;
  void needs_reset() override;

  // With mutex_ held:
  void read_registers(uint64_t offset, std::span<std::byte> data);
  void write_registers(uint64_t offset, std::span<const std::byte> data, Calls& calls);
  void write_common(uint64_t offset, std::span<const std::byte> data, Calls& calls);
  void write_device_config(size_t offset, std::span<const std::byte> data, Calls& calls);
  void activate(Calls& calls);
  void start_queue(uint16_t index, Calls& calls);
  void reset_queue(uint16_t index, Calls& calls);
  void reset_device(Calls& calls);
  void finish_reset();
  void set_needs_reset();
  void replace_config(std::span<const std::byte> config);

  std::optional<Window> window() const;
  void follow_power_state();
  void ignored(const char* access, uint64_t offset, size_t size);

  const std::string name_;
  const GuestMemory& memory_;
  LogLimit ignored_{"ignored accesses to virtio registers"};
  std::unique_ptr<PciInterrupts> interrupts_;

  // PciRoot serialises configuration accesses.
  PciConfigSpace config_space_;
  virtio_pci::CapabilityOffsets capabilities_;
  uint32_t power_state_ = 0;

  std::mutex access_;
  std::mutex mutex_;  // guards all that follows but the pointer to the backend
  virtio_pci::CommonRegisters registers_;
  virtio_pci::Notifications notifications_;  // signalling needs no lock
  std::vector<std::byte> device_config_;
  bool active_ = false;        // the backend has what the driver set up
  bool dirty_ = false;         // the backend must hear of a reset
  bool resetting_ = false;     // the backend has not finished one
  bool memory_given_ = false;  // no reset takes it back
  uint64_t resets_ = 0;        // tells a queue's reset from one before the device's last reset

  std::unique_ptr<DeviceBackend> backend_;  // ends first: it may still call back
};

}  // namespace crosvm
