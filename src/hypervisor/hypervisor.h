#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "memory/guest_address.h"
#include "memory/guest_memory.h"

/// Neutral interfaces to what runs vCPUs: nothing above this folder knows which backend it is.
namespace crosvm {

/// Number of a memory slot: a run of guest physical addresses backed by host memory.
using Memslot = uint32_t;

/// Where guest port and memory accesses go that RAM does not answer. Called on the vCPU's thread;
/// implementations are thread-safe. `data` is 1 to 8 bytes, zero-filled before a read.
class IoHandler {
 public:
  virtual ~IoHandler() = default;
  virtual void port_read(uint16_t port, std::span<std::byte> data) = 0;
  virtual void port_write(uint16_t port, std::span<const std::byte> data) = 0;
  virtual void mmio_read(GuestAddress address, std::span<std::byte> data) = 0;
  virtual void mmio_write(GuestAddress address, std::span<const std::byte> data) = 0;
};

/// Why `Vcpu::run` came back.
struct VcpuExit {
  enum class Kind {
    kIo,              ///< the IoHandler has answered; run again
    kInterrupted,     ///< a signal or immediate exit
    kHlt,             ///< only without an in-kernel interrupt controller
    kIrqWindow,       ///< the vCPU can take an external interrupt now
    kIoapicEoi,       ///< split irqchip: `detail` is the vector
    kShutdown,        ///< x86 triple fault
    kFailEntry,       ///< `detail` is the hardware's reason
    kInternalError,   ///< `detail` is the suberror
    kSystemShutdown,  ///< the guest asked the hypervisor to power off
    kSystemReset,
    kSystemCrash,
    kDebug,
    kUnknown,  ///< `detail` is the backend's number of the reason
  };
  Kind kind = Kind::kInterrupted;
  uint64_t detail = 0;
};

/// One virtual CPU. Its calls belong to the one thread that runs it, but for `set_immediate_exit`.
class Vcpu {
 public:
  virtual ~Vcpu() = default;
  virtual uint32_t id() const = 0;
  /// Enters the guest until something needs us; port and memory accesses go to `io` first.
  /// Errors: the errno of the backend, never EINTR or EAGAIN (those are kInterrupted).
  virtual Result<VcpuExit> run(IoHandler& io) = 0;
  /// Makes the present or next `run` return kInterrupted at once. From any thread; a thread already
  /// in the guest must also be sent a signal. Async-signal-safe.
  virtual void set_immediate_exit(bool exit) = 0;
  /// The guest is about to stand still for a while: lets its clock know, so that its watchdogs do
  /// not take the pause for a lockup. On the vCPU's thread. A backend or a guest without such a
  /// clock does nothing.
  virtual void notify_paused() = 0;
  /// Human-readable registers for an error message, e.g. "rip=0x… cr0=0x…". Never fails.
  virtual std::string describe() = 0;
};

/// A message-signalled interrupt as the device writes it.
struct MsiMessage {
  uint64_t address = 0;
  uint32_t data = 0;
};
/// A pin of an in-kernel interrupt controller; `chip` is counted as the architecture says.
struct IrqChipPin {
  uint32_t chip = 0;
  uint32_t pin = 0;
};
/// What happens when interrupt line `gsi` is raised.
struct IrqRoute {
  uint32_t gsi = 0;
  std::variant<IrqChipPin, MsiMessage> target;
};

/// What an ioeventfd listens to. `length` is 1, 2, 4, 8 bytes, or 0 for any; `datamatch` only with
/// a length. KVM API 4.59.
struct IoEvent {
  enum class Space { kPort, kMmio };
  Space space = Space::kMmio;
  uint64_t address = 0;
  uint32_t length = 0;
  std::optional<uint64_t> datamatch;
};

/// One virtual machine. Thread-safe unless said otherwise.
class Vm {
 public:
  virtual ~Vm() = default;

  /// Gives the guest all regions of `memory`, in order, from slot 0. `memory` must outlive the Vm.
  virtual Result<void> map_ram(const GuestMemory& memory) = 0;
  /// Maps `length` bytes of host memory at guest address `base`; all multiples of the page size.
  /// The lowest free slot is used. Errors: file_exists if it overlaps, else the errno.
  virtual Result<Memslot> map(GuestAddress base, void* host, uint64_t length, bool read_only) = 0;
  virtual Result<void> unmap(Memslot slot) = 0;

  /// Raises `gsi` each time `trigger` is signalled. With `resample` the line stays up until the
  /// guest's EOI, which signals `resample` (KVM API 4.75). Descriptors are borrowed for the call.
  virtual Result<void> register_irqfd(uint32_t gsi, const Fd& trigger, const Fd* resample) = 0;
  virtual Result<void> unregister_irqfd(uint32_t gsi, const Fd& trigger) = 0;
  /// Replaces the whole routing table.
  virtual Result<void> set_irq_routes(std::span<const IrqRoute> routes) = 0;
  virtual Result<void> set_irq_line(uint32_t gsi, bool level) = 0;
  /// Delivers an MSI at once, without a route.
  virtual Result<void> signal_msi(const MsiMessage& message) = 0;

  /// Signals `event` when the guest writes what `what` says, without an exit.
  virtual Result<void> register_ioevent(const IoEvent& what, const Fd& event) = 0;
  virtual Result<void> unregister_ioevent(const IoEvent& what, const Fd& event) = 0;

  /// A duplicate of the backend's VM descriptor and the backend's name as the control socket spells
  /// it ("Kvm").
  virtual Result<Fd> duplicate_descriptor() const = 0;
  virtual std::string_view backend_name() const = 0;
};

}  // namespace crosvm
