#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "virtio/device_backend.h"

namespace crosvm {

/// Just enough of a vhost-user front-end to drive somebody else's device with our rig: it blocks,
/// and ends the benchmark on errors.
class VhostUserClient : public DeviceBackend {
 public:
  /// Connects to a back-end that listens at `socket`, with `queues` queues of 256 elements.
  static std::unique_ptr<VhostUserClient> connect(const std::string& socket, uint16_t queues);
  ~VhostUserClient() override = default;

  const DeviceInfo& info() const override { return info_; }
  void set_listener(BackendListener*) override {}
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
  void set_config(size_t, std::vector<std::byte>) override {}

 private:
  VhostUserClient() = default;
  void send(uint32_t request, std::span<const std::byte> payload, std::span<const int> fds = {});
  template <class T>
  void send_value(uint32_t request, const T& payload, std::span<const int> fds = {}) {
    send(request, std::as_bytes(std::span(&payload, 1)), fds);
  }
  template <class T>
  T receive();
  uint64_t ask(uint32_t request);

  Fd socket_;
  DeviceInfo info_;
  std::vector<bool> running_;
};

}  // namespace crosvm
