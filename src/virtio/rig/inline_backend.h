#pragma once

#include <memory>
#include <string>

#include "virtio/device_backend.h"
#include "virtio/device_factory.h"
#include "virtio/device_host.h"

namespace crosvm {

/// A device on the event loop of the thread that calls it, for tests that decide themselves when
/// the loop turns.
class InlineBackend : public DeviceBackend {
 public:
  /// `loop` outlives the backend. Errors: those of creating the device.
  static Result<std::unique_ptr<InlineBackend>> create(EventLoop& loop, const std::string& name,
                                                       OpenedDevice& device);
  ~InlineBackend() override;

  const DeviceInfo& info() const override { return info_; }
  void set_listener(BackendListener* listener) override { listener_ = listener; }
  void set_features(uint64_t features) override { host_->set_features(features); }
  void set_memory(const GuestMemory& memory) override { host_->set_memory(memory); }
  void set_vring_num(uint16_t index, uint16_t size) override { host_->set_vring_num(index, size); }
  void set_vring_addr(uint16_t index, const VringAddresses& addresses) override {
    host_->set_vring_addr(index, addresses);
  }
  void set_vring_base(uint16_t index, RingPosition position) override {
    host_->set_vring_base(index, position);
  }
  void set_vring_kick(uint16_t index, Fd kick) override {
    host_->set_vring_kick(index, std::move(kick));
  }
  void set_vring_call(uint16_t index, Fd call) override {
    host_->set_vring_call(index, std::move(call));
  }
  void set_vring_enable(uint16_t index, bool enable) override {
    host_->set_vring_enable(index, enable);
  }
  void get_vring_base(uint16_t index, std::function<void(RingPosition)> done) override {
    host_->get_vring_base(index, std::move(done));
  }
  void reset(std::function<void()> done) override { host_->reset(std::move(done)); }
  void set_config(size_t offset, std::vector<std::byte> data) override {
    host_->set_config(offset, data);
  }
  void command(DeviceCommand command, CommandDone done) override {
    host_->command(std::move(command), std::move(done));
  }

 private:
  explicit InlineBackend(EventLoop& loop) : loop_(loop) {}

  EventLoop& loop_;
  DeviceInfo info_;
  BackendListener* listener_ = nullptr;
  std::unique_ptr<DeviceHost> host_;
};

}  // namespace crosvm
