#pragma once

#include <functional>

#include "pci/pci_root.h"
#include "platform/bus.h"

namespace crosvm {

/// Ports 0xCF8 to 0xCFF: configuration mechanism #1, and the reset register 0xCF9 (devices.md 3.1).
class PciConfigPorts : public BusDevice {
 public:
  static constexpr uint16_t kBase = 0xcf8;
  static constexpr uint16_t kLength = 8;

  /// `reset` is called when the guest writes 0xCF9 with bit 2 set.
  PciConfigPorts(PciRoot& root, std::function<void()> reset)
      : root_(root), reset_(std::move(reset)) {}
  std::string_view label() const override { return "PCI configuration ports"; }
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  bool selected() const { return (address_ & 1U << 31) != 0; }
  PciAddress target() const;
  size_t register_index() const { return address_ >> 2 & 0x3f; }

  PciRoot& root_;
  std::function<void()> reset_;
  uint32_t address_ = 0;
};

/// The memory-mapped mechanism: 4 KiB for each function, 1 MiB for each bus (PCIe 5.0 §7.2.2).
class PciEcam : public BusDevice {
 public:
  explicit PciEcam(PciRoot& root) : root_(root) {}
  std::string_view label() const override { return "PCI ECAM"; }
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  PciRoot& root_;
};

}  // namespace crosvm
