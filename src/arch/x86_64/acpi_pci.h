#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "memory/guest_address.h"

/// What the firmware tables of an x86_64 machine say about PCI.
namespace crosvm::x86_64 {

/// An INTx pin of a PCI function and the interrupt line that it drives.
struct PciIntx {
  uint8_t bus = 0;
  uint8_t device = 0;    ///< 0 to 31
  uint8_t function = 0;  ///< 0 to 7
  uint8_t pin = 0;       ///< 0 is INTA, 3 is INTD
  uint32_t gsi = 0;      ///< below 256
};

/// A function on bus 0 that gets a device in the DSDT.
struct AcpiPciFunction {
  uint8_t device = 0;                         ///< 0 to 31
  uint8_t function = 0;                       ///< 0 to 7
  std::optional<uint8_t> secondary_bus = {};  ///< of a bridge; not 0
};

/// A window [base, base + size) of guest physical addresses, in bytes.
struct AcpiWindow {
  GuestAddress base = {};
  uint64_t size = 0;
};

/// The PCI host bridge.
struct AcpiPci {
  AcpiWindow ecam = {};               ///< below 4 GiB; 1 MiB per bus, up to 256 buses
  std::vector<AcpiWindow> mmio = {};  ///< where BARs may lie, low and high
  GuestAddress vcfg = {};             ///< base of the virtual configuration window
  std::vector<PciIntx> irqs = {};     ///< of all buses
  std::vector<AcpiPciFunction> functions = {};

  uint8_t last_bus() const { return static_cast<uint8_t>((ecam.size >> 20) - 1); }
};

}  // namespace crosvm::x86_64
