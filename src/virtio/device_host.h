#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "virtio/device_backend.h"
#include "virtio/virtio_device.h"

namespace crosvm {

/// Runs one VirtioDevice: its features, its view of guest memory and the state of its rings.
///
/// Whether a ring runs is a fact, computed anew after every change from features, memory, size,
/// addresses, kick and enable; a difference starts or stops it. What changes under a running ring
/// stops it and starts it again where it was. A ring that is being stopped is not started again
/// before it has stopped. Once the device needs a reset no ring starts until there was one. All
/// calls are made on the loop; no callback may destroy the host.
class DeviceHost : private DeviceEvents {
 public:
  using MakeDevice = std::function<Result<std::unique_ptr<VirtioDevice>>(DeviceEvents&)>;
  /// What the host tells its owner, on the loop.
  struct Events {
    /// Also after every `set_config`: what the device made of it.
    std::function<void(std::vector<std::byte> config)> config_changed;
    std::function<void()> needs_reset;
    /// As those of DeviceEvents; none: nobody shows shared memory.
    std::function<void(const SharedPlace&, SharedFile, MapDone)> map_shared{};
    std::function<void(const SharedPlace&, MapDone)> unmap_shared{};
  };

  /// `name` names the device in logs. Errors: those of `make`.
  static Result<std::unique_ptr<DeviceHost>> create(std::string name, Events events,
                                                    const MakeDevice& make);
  ~DeviceHost() override;

  /// What the device offers, ring features included.
  DeviceInfo info() const;

  // The verbs of DeviceBackend. An index without a queue and a value that cannot be (a size of 0 or
  // above the queue's largest, a feature that was not offered) are logged and ignored.

  /// The guest's RAM. `former_unused` runs once no queue uses what was set before; until then both
  /// must live, and `memory` until the next call or the host's end.
  void set_memory(const GuestMemory& memory, std::function<void()> former_unused = {});
  void set_features(uint64_t features);
  void set_vring_num(uint16_t index, uint16_t size);
  void set_vring_addr(uint16_t index, const VringAddresses& addresses);
  void set_vring_base(uint16_t index, RingPosition position);
  void set_vring_kick(uint16_t index, Fd kick);
  void set_vring_call(uint16_t index, Fd call);
  void set_vring_enable(uint16_t index, bool enable);
  /// Where the ring's requests in flight are remembered; null: nowhere.
  void set_vring_inflight(uint16_t index, std::shared_ptr<InflightLog> log);
  /// Where the device notes the pages that it writes to; null: nowhere. `reset` does not change it.
  void set_dirty_log(std::shared_ptr<DirtyLog> log);
  /// Where in that the ring's device area has its place; none: what is written to the ring is not
  /// noted.
  void set_vring_log(uint16_t index, std::optional<GuestAddress> device_area);
  /// Calls `done`, perhaps at once, when no ring runs any more as it did before the changes so far.
  void when_settled(std::function<void()> done);
  /// The device's state, for `load_state` of a host of the same device; only with no ring running,
  /// as is that. Where rings stand is not in it. Errors: a ring runs.
  Result<std::vector<std::byte>> save_state() const;
  /// Errors: invalid_argument for what is no state of this device, not_supported for one of another
  /// version, of features that are not offered, or of a newer device; nothing has changed then.
  Result<void> load_state(std::span<const std::byte> bytes);
  /// No ring runs.
  bool stopped() const;
  /// What becomes of a ring's requests in flight when it stops.
  enum class InFlight {
    kFinish,   ///< they come to their end first
    kSuspend,  ///< they may stay in its log (`set_vring_inflight`), if it has one
  };
  void get_vring_base(uint16_t index, std::function<void(RingPosition)> done,
                      InFlight in_flight = InFlight::kFinish);
  void reset(std::function<void()> done);
  void set_config(size_t offset, std::span<const std::byte> data);
  /// As of VirtioDevice; errors name the device.
  void command(DeviceCommand command, CommandDone done);
  /// Errors: those of VirtioDevice::set_mtu.
  Result<void> set_mtu(uint16_t mtu) const;

 private:
  struct State;
  explicit DeviceHost(std::unique_ptr<State> state);
  void config_changed() override;
  void needs_reset(std::string why) override;
  void map_shared(const SharedPlace& place, SharedFile file, MapDone done) override;
  void unmap_shared(const SharedPlace& place, MapDone done) override;

  std::unique_ptr<State> state_;
};

}  // namespace crosvm
