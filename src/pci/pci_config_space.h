#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"

namespace crosvm {

/// Who a function says it is. PCI Local Bus 3.0 §6.2.1.
struct PciIdentity {
  uint16_t vendor = 0xffff;
  uint16_t device = 0;
  uint8_t revision = 0;
  uint8_t class_code = 0;
  uint8_t subclass = 0;
  uint8_t programming_interface = 0;
  uint16_t subsystem_vendor = 0;
  uint16_t subsystem = 0;
};

/// A base address register: what it decodes. `size` in bytes, a power of two.
struct PciBar {
  enum class Kind { kMemory32, kMemory64, kIo };
  Kind kind = Kind::kMemory32;
  bool prefetchable = false;
  uint64_t size = 0;
};

/// The 256 bytes of configuration space of a type 0 function: 64 registers with a mask of writable
/// bits each. Not thread-safe: PciRoot serialises.
class PciConfigSpace {
 public:
  static constexpr size_t kRegisters = 64;
  static constexpr size_t kBars = 6;

  explicit PciConfigSpace(const PciIdentity& identity);

  /// Declares BAR `index`; a 64-bit one takes the next too. Its decode bit in the command register
  /// is set from the start. Errors: invalid_argument for a size or index that cannot be.
  Result<void> add_bar(size_t index, const PciBar& bar);
  /// Appends a capability (id, then `body`; the next pointer is ours), 4-byte aligned. The guest
  /// may write the bits of the body that are set in `writable`, which may be shorter. Returns its
  /// offset. Errors: no_space_on_device when it does not end below 0x100.
  Result<uint8_t> add_capability(uint8_t id, std::span<const std::byte> body,
                                 std::span<const std::byte> writable = {});
  void set_multifunction(bool on);
  /// Pin 1..4 for INTA..INTD, and the line the guest reads.
  void set_interrupt(uint8_t pin, uint8_t line);
  /// Replaces a register that the guest only reads.
  void set_read_only(size_t index, uint32_t value) { registers_[index] = value; }

  uint32_t read(size_t index) const { return index < kRegisters ? registers_[index] : ~0U; }
  /// Writes 1, 2 or 4 naturally aligned bytes at `offset` (0..3) of register `index`; anything else
  /// is logged and ignored (devices.md 3.1), as is a write to MSI-X Message Control of other than
  /// its 2 bytes (devices.md 3.5).
  void write(size_t index, size_t offset, std::span<const std::byte> data);

  std::optional<PciBar> bar(size_t index) const { return bars_[index]; }
  /// Where the guest put BAR `index`, whether or not it is decoded.
  uint64_t bar_address(size_t index) const;
  void set_bar_address(size_t index, uint64_t address);
  /// The command register has decoding of this kind on. PCI 3.0 §6.2.2.
  bool decodes(PciBar::Kind kind) const;

 private:
  std::array<uint32_t, kRegisters> registers_{};
  std::array<uint32_t, kRegisters> writable_{};
  std::array<std::optional<PciBar>, kBars> bars_{};
  uint8_t last_capability_ = 0;
  size_t capabilities_end_ = 0x40;
  std::optional<size_t> msix_register_;  // with Message Control in its upper half
};

}  // namespace crosvm
