#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "virtio/device_factory.h"
#include "virtio/rig/echo_device.h"

namespace crosvm {

/// What a driver writes to the configuration of a WindowDevice, and what comes of it.
struct WindowCommand {
  enum Do : uint8_t { kNothing, kMap, kUnmap };
  enum Result : uint8_t { kPending, kDone, kFailed };

  uint8_t what = kNothing;
  uint8_t id = 0;
  uint8_t page = 0;  ///< in the region
  uint8_t pages = 0;
  uint8_t file_page = 0;
  uint8_t writable = 0;
  uint8_t number = 0;  ///< of the driver's choice
  uint8_t result = kPending;

  std::array<std::byte, 8> bytes() const;
};
static_assert(sizeof(WindowCommand) == 8);

/// A device for tests of shared memory: an EchoDevice that maps pages of a file into its regions as
/// its driver wants.
class WindowDevice : public EchoDevice {
 public:
  /// `sizes`: of the regions, in bytes.
  WindowDevice(std::vector<uint64_t> sizes, Fd file, DeviceContext context);

  std::span<const uint64_t> shared_memory() const override { return sizes_; }
  std::span<const std::byte> config_space() const override { return config_; }
  void write_config(size_t offset, std::span<const std::byte> data) override;

 private:
  void finish(WindowCommand command, bool good);

  std::vector<uint64_t> sizes_;
  Fd file_;
  DeviceEvents& events_;
  std::array<std::byte, 8> config_{};
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

/// A WindowDevice that is ready to run.
std::unique_ptr<OpenedDevice> open_window(std::vector<uint64_t> sizes, Fd file);

}  // namespace crosvm
