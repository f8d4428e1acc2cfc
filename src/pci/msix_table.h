#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hypervisor/hypervisor.h"

namespace crosvm {

/// The registers of MSI-X in memory: the vector table and the pending bits. PCI 3.0 §6.8.2. Not
/// thread-safe.
class MsixTable {
 public:
  static constexpr size_t kEntrySize = 16;  ///< bytes

  /// `vectors` entries, all masked.
  explicit MsixTable(uint16_t vectors);

  uint16_t vectors() const { return static_cast<uint16_t>(entries_.size()); }
  MsiMessage message(uint16_t vector) const;
  bool masked(uint16_t vector) const;

  /// Naturally aligned accesses of 4 or 8 bytes inside the table or the pending bits; for others
  /// false, and nothing else happens.
  bool read(uint64_t offset, std::span<std::byte> data) const;
  bool read_pending(uint64_t offset, std::span<std::byte> data) const;
  /// The vector whose entry was written; none for an access that is refused.
  std::optional<uint16_t> write(uint64_t offset, std::span<const std::byte> data);

  void set_pending(uint16_t vector);
  /// Whether the vector's bit was set; clears it.
  bool take_pending(uint16_t vector);
  void clear_pending();

 private:
  using Entry = std::array<uint32_t, kEntrySize / 4>;

  std::vector<Entry> entries_;
  std::vector<uint32_t> pending_;  // whole quadwords of bits
};

}  // namespace crosvm
