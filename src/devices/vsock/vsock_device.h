#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "devices/queue_turns.h"
#include "devices/vsock/vsock_config.h"
#include "devices/vsock/vsock_connections.h"
#include "virtio/device_factory.h"
#include "virtio/virtio_device.h"

namespace crosvm {

/// What a socket device lives on: see VsockHost.
struct VsockResources {
  Fd dialer;                  ///< where it asks for connections
  std::vector<Fd> listeners;  ///< a listening socket for each `listen` of the configuration
  template <class V>
  void visit(V&& each) {
    each(dialer);
    each(listeners);
  }
};

/// Socket device (virtio 1.3 §5.10) with `backend=user`: connects ports of the guest with Unix
/// sockets of the host.
class VsockDevice : public VirtioDevice {
 public:
  static Result<std::unique_ptr<VsockDevice>> create(const VsockConfig& config,
                                                     VsockResources resources,
                                                     const DeviceContext& context);

  uint32_t device_type() const override;
  std::span<const uint16_t> queue_sizes() const override { return queue_sizes_; }
  uint64_t device_features() const override { return kVsockStream | kVsockSeqpacket; }
  std::span<const std::byte> config_space() const override;
  void set_features(uint64_t features) override;
  Result<void> start_queue(uint16_t index, Virtqueue queue) override;
  void stop_queue(uint16_t index, StopDone done) override;
  void reset() override;
  void save_state(DeviceFields& to) const override;
  Result<void> load_state(const DeviceFields& from) override;

 private:
  VsockDevice(const VsockConfig& config, const DeviceContext& context);
  Result<QueueTurns::Turn> serve_receiveq();
  Result<QueueTurns::Turn> serve_transmitq();
  Result<QueueTurns::Turn> serve_eventq();
  QueueTurns& queue(uint16_t index) { return *queues_[index]; }

  uint64_t guest_cid_;
  std::array<uint16_t, 3> queue_sizes_;
  bool reset_due_ = false;       // the driver must hear that all its connections are gone
  bool transmitq_held_ = false;  // until answers have gone out
  QueueTurns receiveq_;
  QueueTurns transmitq_;
  QueueTurns eventq_;
  std::array<QueueTurns*, 3> queues_{&receiveq_, &transmitq_, &eventq_};
  std::unique_ptr<VsockConnections> connections_;
};

struct VsockFactory {
  static constexpr std::string_view kName = "vsock";
  static constexpr std::string_view kPolicy = "vsock_device";
  using Config = VsockConfig;
  using Resources = VsockResources;
  /// Only of a device with `backend=user`.
  static Result<Config> parse(const KeyValues& text);
  /// A device that reaches no socket; others are opened by VsockHost.
  static Result<Resources> open(const Config& config);
  static size_t rings(const Config&) { return 0; }
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources resources,
                                                      const DeviceContext& context);
};
static_assert(DeviceFactory<VsockFactory>);

}  // namespace crosvm
