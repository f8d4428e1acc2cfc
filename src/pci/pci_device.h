#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "pci/pci_config_space.h"

namespace crosvm {

/// A PCI function. PciRoot serialises its configuration accesses, and apart from those the accesses
/// to all its BARs; one of each kind may happen at once on different threads.
class PciDevice {
 public:
  virtual ~PciDevice() = default;
  /// Names the device in logs.
  virtual std::string_view label() const = 0;
  virtual PciConfigSpace& config() = 0;
  /// `offset` is in bytes from the start of BAR `bar`; `data` is zero-filled.
  virtual void read_bar(size_t bar, uint64_t offset, std::span<std::byte> data) = 0;
  virtual void write_bar(size_t bar, uint64_t offset, std::span<const std::byte> data) = 0;
  /// The guest is about to read register `index`: the moment to renew one whose reads do something.
  virtual void config_reading(size_t /*index*/) {}
  /// The guest wrote register `index`; PciRoot has moved the BARs already.
  virtual void config_written(size_t /*index*/) {}
  /// BAR `bar` is decoded at `address` from now on, or, with none, nowhere. Comes when the function
  /// is added and before config_written; of a move in two calls. Serialised with configuration
  /// accesses, but not with those to BARs.
  virtual void bar_mapped(size_t /*bar*/, std::optional<uint64_t> /*address*/) {}
};

}  // namespace crosvm
