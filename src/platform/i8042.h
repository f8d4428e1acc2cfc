#pragma once

#include <functional>
#include <utility>

#include "platform/bus.h"

namespace crosvm {

/// The part of a keyboard controller that a PC cannot be without (devices.md 2.4): the reset line.
/// No keyboard and no mouse.
class I8042 : public BusDevice {
 public:
  static constexpr uint64_t kBase = 0x61;
  static constexpr uint64_t kLength = 4;            ///< bytes of port space, 0x61..0x64
  static constexpr uint64_t kBaseBesidePit = 0x62;  ///< where an emulated PIT has port 0x61
  static constexpr uint64_t kLengthBesidePit = 3;

  /// `reset` asks for the reset of the VM; called on a vCPU's thread. `base` is where the bus has
  /// it.
  explicit I8042(std::function<void()> reset, uint64_t base = kBase)
      : reset_(std::move(reset)), base_(base) {}

  std::string_view label() const override { return "i8042"; }
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  std::function<void()> reset_;
  uint64_t base_;
};

}  // namespace crosvm
