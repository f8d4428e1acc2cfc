#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "arch/x86_64/acpi_user.h"
#include "arch/x86_64/linux_boot.h"
#include "arch/x86_64/memory_map.h"
#include "hypervisor/msi_routes.h"
#include "hypervisor/x86_64/hypervisor.h"
#include "memory/guest_memory.h"
#include "pci/interrupt_relay.h"
#include "pci/intx_lines.h"
#include "pci/pci_places.h"
#include "pci/pci_root.h"
#include "platform/pm.h"
#include "platform/serial_backend.h"
#include "platform/terminal.h"
#include "virtio/device_backend.h"
#include "vmm/boot_files.h"
#include "vmm/guest_io.h"
#include "vmm/machine.h"
#include "vmm/terminal_size.h"
#include "vmm/virtio_devices.h"

namespace crosvm {

/// The x86_64 machine: a PC without legacy devices but serial ports, RTC and an i8042 stub.
class MachineX86 : public Machine {
 public:
  static Result<std::unique_ptr<Machine>> build(const Config& config, EventLoop& loop,
                                                const Fd& interrupt, MachineEvents events,
                                                std::unique_ptr<Workers> workers);
  ~MachineX86() override;

  Result<void> start() override;
  void stop() override;
  VcpuGroup& vcpus() override { return vcpus_; }
  Result<void> press_power_button() override;
  Result<void> press_sleep_button() override;
  Result<void> raise_gpe(uint32_t number, Fd clear) override;
  Result<void> raise_rtc(Fd clear) override;
  void command_device(std::string_view type, size_t index, DeviceCommand command,
                      CommandDone done) override;
  Result<Fd> duplicate_vm_descriptor() override { return vm_->duplicate_descriptor(); }
  std::string_view hypervisor_name() override { return vm_->backend_name(); }

 private:
  MachineX86(const Config& config, EventLoop& loop, MachineEvents events,
             std::unique_ptr<Workers> workers);

  /// No thread does more from here on than its work needs.
  Result<void> confine_relay();

  // The steps of `build`, in order.
  Result<void> read_user_acpi();
  Result<void> open_devices(const Fd& interrupt);
  Result<void> create_memory();
  Result<void> create_vm();
  Result<void> add_pci();
  Result<void> add_pci_functions();
  Result<void> add_serial_ports();
  Result<void> add_power_management();
  Result<void> add_rtc();
  Result<void> add_i8042();
  Result<void> load_guest(const BootFiles& files);
  Result<void> write_firmware_tables();
  Result<void> create_vcpus();

  /// A new eventfd each signal of which is an edge on `gsi`.
  Result<Fd> edge_interrupt(uint32_t gsi);
  /// What every serial port gets.
  SerialHost serial_host();
  /// Gives the guest the virtio device behind `backend`, at the reserved `place`.
  Result<void> add_virtio(std::unique_ptr<DeviceBackend> backend, const PciPlace& place);
  Result<std::string> command_line() const;

  const Config config_;
  EventLoop& loop_;
  MachineEvents events_;
  Fd stop_event_;

  x86_64::UserAcpiTables user_acpi_;  // until the tables are written
  uint32_t sci_gsi_ = 0;

  // In the order in which each needs the ones before it; destroyed in reverse.
  x86_64::MemoryLayout layout_;
  std::optional<GuestMemory> memory_;
  std::unique_ptr<x86_64::Hypervisor> hypervisor_;
  std::unique_ptr<x86_64::Vm> vm_;
  std::optional<MsiRoutes> msi_routes_;
  std::unique_ptr<InterruptRelay> relay_;
  std::optional<IntxLines> intx_lines_;
  VirtioDevices virtio_;  // until they are part of the machine; its consoles pass bytes on
  std::unique_ptr<Workers> workers_;
  GuestIo io_;
  std::optional<PciRoot> pci_;
  std::shared_ptr<Pm> pm_;
  std::optional<x86_64::BootState> boot_;
  std::vector<std::unique_ptr<Vcpu>> created_vcpus_;  // until `start`
  bool reads_terminal_ = false;
  std::optional<RawTerminal> terminal_;
  std::unique_ptr<TerminalSizes> terminal_sizes_;
  VcpuGroup vcpus_;
};

}  // namespace crosvm
