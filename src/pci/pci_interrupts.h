#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/msi_routes.h"
#include "pci/interrupt_relay.h"

namespace crosvm {

/// What the machine offers to functions that interrupt. All outlive them.
struct PciInterruptHost {
  Vm& vm;
  MsiRoutes& routes;
  InterruptRelay& relay;
};

/// The interrupts of one PCI function: eventfds that its device signals, and the two ways by which
/// they reach the guest, MSI-X (PCI 3.0 §6.8.2) and the INTx line.
///
/// How each event travels is a fact, computed anew after every change: with its MSI-X vector
/// unmasked straight through an irqfd, with it masked through the relay into the pending bit array,
/// with MSI-X disabled through the relay to the line. No event is lost on the way from one to
/// another. Where the hypervisor refuses an irqfd or a route the relay delivers. Thread-safe.
class PciInterrupts {
 public:
  static constexpr uint16_t kNoVector = 0xffff;
  static constexpr size_t kTableEntrySize = 16;

  struct Options {
    uint16_t vectors = 1;  ///< entries of the MSI-X table, 1 to 2048
    /// One for each event: the bits it sets in the cause register (virtio: ISR, 1.3 §4.1.4.5) when
    /// it travels by INTx.
    std::vector<uint8_t> causes;
    std::optional<uint32_t> intx_gsi;    ///< none: no INTx pin
    std::string label = "PCI function";  ///< names the function in logs
  };
  /// Errors: the errno of making an eventfd.
  static Result<std::unique_ptr<PciInterrupts>> create(const PciInterruptHost& host,
                                                       Options options);
  ~PciInterrupts();

  uint16_t vectors() const;
  /// The eventfd whose signals raise event `index`; borrowed.
  const Fd& event(size_t index) const;
  /// Which MSI-X vector event `index` uses; kNoVector or one past the table: none, which `vector`
  /// then says too. An event without a vector is dropped while MSI-X is enabled.
  void set_vector(size_t index, uint16_t vector);
  uint16_t vector(size_t index) const;

  /// The MSI-X table and pending bits as the guest sees them: naturally aligned accesses of 4 or 8
  /// bytes; others are logged, read zeroes and change nothing. Offsets from the start of each.
  void read_table(uint64_t offset, std::span<std::byte> data) const;
  void write_table(uint64_t offset, std::span<const std::byte> data);
  void read_pending(uint64_t offset, std::span<std::byte> data) const;
  /// The two bits of Message Control.
  void set_control(bool enable, bool function_mask);
  bool msix_enabled() const;

  /// Reads and clears the causes, and lowers the line: a driver's read of ISR.
  uint8_t take_causes();
  /// The command register's Interrupt Disable bit (PCI 3.0 §6.2.2).
  void set_intx_disabled(bool disabled);
  /// Back to the state after `create`, but for what belongs to PCI (the MSI-X table, Message
  /// Control, the Interrupt Disable bit): vectors of events, causes, what is pending or waits in
  /// the eventfds. Nobody may be signalling them.
  void reset_events();

 private:
  struct State;
  explicit PciInterrupts(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
