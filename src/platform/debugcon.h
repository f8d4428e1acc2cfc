#pragma once

#include <memory>

#include "platform/bus.h"
#include "platform/serial_output.h"

namespace crosvm {

/// The port firmware writes its debug log to (devices.md 2.2); one byte wide, no interrupt.
class Debugcon : public BusDevice {
 public:
  static constexpr uint64_t kLength = 1;  ///< bytes of port space

  explicit Debugcon(std::unique_ptr<SerialOutput> output) : output_(std::move(output)) {}

  std::string_view label() const override { return "debugcon"; }
  /// 0xE9, by which a guest finds the port.
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  std::unique_ptr<SerialOutput> output_;
  bool output_failed_ = false;
};

}  // namespace crosvm
