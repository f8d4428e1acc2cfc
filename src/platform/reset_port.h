#pragma once

#include <functional>
#include <utility>

#include "platform/bus.h"

namespace crosvm {

/// The reset control register at 0xCF9 (platform.md 1.3), which the FADT names too: a 1-byte write
/// with bit 2 set resets the VM.
class ResetPort : public BusDevice {
 public:
  static constexpr uint64_t kBase = 0xcf9;
  static constexpr uint64_t kLength = 1;  ///< bytes of port space

  /// `reset` asks for the reset of the VM; called on a vCPU's thread.
  explicit ResetPort(std::function<void()> reset) : reset_(std::move(reset)) {}

  std::string_view label() const override { return "reset"; }
  void read(uint64_t, std::span<std::byte>) override {}
  void write(uint64_t, std::span<const std::byte> data) override {
    if (data.size() == 1 && (data[0] & kResetCpu) != std::byte{0}) reset_();
  }

 private:
  static constexpr std::byte kResetCpu{0x04};

  std::function<void()> reset_;
};

}  // namespace crosvm
