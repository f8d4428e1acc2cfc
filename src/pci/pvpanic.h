#pragma once

#include <cstdint>
#include <functional>

#include "pci/pci_device.h"

namespace crosvm {

/// What the guest last said of itself.
enum class PanicCode { kPanicked, kCrashKernelLoaded, kUnknown };

/// The device a guest's kernel reports its panic to (devices.md 2.6): PCI 1B36:0011.
class Pvpanic : public PciDevice {
 public:
  /// `report` is called on the vCPU's thread at each report.
  explicit Pvpanic(std::function<void(PanicCode)> report);

  std::string_view label() const override { return "pvpanic"; }
  PciConfigSpace& config() override { return config_; }
  void read_bar(size_t bar, uint64_t offset, std::span<std::byte> data) override;
  void write_bar(size_t bar, uint64_t offset, std::span<const std::byte> data) override;

 private:
  PciConfigSpace config_;
  std::function<void(PanicCode)> report_;
};

}  // namespace crosvm
