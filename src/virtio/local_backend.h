#pragma once

#include <functional>
#include <memory>
#include <string>

#include "virtio/device_backend.h"
#include "virtio/device_factory.h"
#include "virtio/device_host.h"

namespace crosvm {

/// A device in this process, on an event loop and a thread of its own (`--disable-sandbox`).
class LocalBackend : public DeviceBackend {
 public:
  /// Starts the thread and creates the device on it. Errors: those of creating the device.
  static Result<std::unique_ptr<LocalBackend>> create(std::string name,
                                                      std::unique_ptr<OpenedDevice> device);
  /// Stops the rings, waits until nothing is in flight, ends the thread.
  ~LocalBackend() override;

  const DeviceInfo& info() const override;
  void set_listener(BackendListener* listener) override;
  void set_features(uint64_t features) override;
  void set_memory(const GuestMemory& memory) override;
  void set_vring_num(uint16_t index, uint16_t size) override;
  void set_vring_addr(uint16_t index, const VringAddresses& addresses) override;
  void set_vring_base(uint16_t index, RingPosition position) override;
  void set_vring_kick(uint16_t index, Fd kick) override;
  void set_vring_call(uint16_t index, Fd call) override;
  void set_vring_enable(uint16_t index, bool enable) override;
  void get_vring_base(uint16_t index, std::function<void(RingPosition)> done) override;
  void reset(std::function<void()> done) override;
  void set_config(size_t offset, std::vector<std::byte> data) override;
  void command(DeviceCommand command, CommandDone done) override;

 private:
  struct State;
  explicit LocalBackend(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
