#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/event_loop.h"
#include "base/result.h"
#include "jail/workers.h"
#include "virtio/device_command.h"
#include "vmm/config.h"
#include "vmm/exit_state.h"
#include "vmm/vcpu_group.h"

namespace crosvm {

/// One VM, built and ready to start: memory, hypervisor, devices, vCPUs. What it is made of depends
/// on the architecture; what can be done to it does not.
class Machine {
 public:
  virtual ~Machine() = default;

  /// Lets the vCPUs run.
  virtual Result<void> start() = 0;
  /// Takes the vCPUs out of the guest for good and quiets the devices. Idempotent.
  virtual void stop() = 0;

  virtual VcpuGroup& vcpus() = 0;

  /// ACPI events of the power-management block. Errors: not_supported on a machine without one.
  virtual Result<void> press_power_button() = 0;
  virtual Result<void> press_sleep_button() = 0;
  /// `clear` lowers the event again when it is signalled; none: it is a pulse.
  virtual Result<void> raise_gpe(uint32_t number, Fd clear) = 0;
  virtual Result<void> raise_rtc(Fd clear) = 0;

  /// Asks the virtio device of `type` that comes at place `index`, from 0, among those of its type
  /// on the command line. `done` is called as of DeviceBackend::command. Errors: no_such_device, or
  /// those of that.
  virtual void command_device(std::string_view type, size_t index, DeviceCommand command,
                              CommandDone done) = 0;

  /// The backend's VM descriptor and name for the control socket's VmDescriptor.
  virtual Result<Fd> duplicate_vm_descriptor() = 0;
  virtual std::string_view hypervisor_name() = 0;
};

/// What a machine tells its process. Called on any thread.
struct MachineEvents {
  std::function<void(ExitState)> ended;     ///< by the guest or by a fault
  std::function<void(PanicCode)> panicked;  ///< pvpanic; the VM runs on
  std::function<void()> left_by_escape;     ///< Ctrl-A x on the terminal
};

/// Builds the machine of this architecture. Its virtio devices run in processes of `workers`, or in
/// this one when that is null. What it waits for is given up once `interrupt` can be read from
/// (wait_ready). Errors name the object, the cause and the fix.
Result<std::unique_ptr<Machine>> build_machine(const Config& config, EventLoop& loop,
                                               const Fd& interrupt, MachineEvents events,
                                               std::unique_ptr<Workers> workers);

}  // namespace crosvm
