#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/key_value.h"
#include "devices/queue_turns.h"
#include "virtio/device_factory.h"
#include "virtio/virtio_device.h"

namespace crosvm {

/// Entropy device (virtio 1.3 §5.4, devices.md 6.1): fills what the driver gives it with random
/// bytes of the host.
class RngDevice : public VirtioDevice {
 public:
  explicit RngDevice(const DeviceContext& context);

  uint32_t device_type() const override;
  std::span<const uint16_t> queue_sizes() const override { return kQueueSizes; }
  uint64_t device_features() const override { return 0; }
  std::span<const std::byte> config_space() const override { return {}; }
  Result<void> start_queue(uint16_t index, Virtqueue queue) override;
  void stop_queue(uint16_t index, StopDone done) override;

 private:
  static constexpr std::array<uint16_t, 1> kQueueSizes{256};

  Result<QueueTurns::Turn> serve();
  Result<void> fill_some(uint64_t& budget);

  QueueTurns requestq_;
  std::optional<DescriptorChain> request_;  // not yet full
  uint64_t filled_ = 0;                     // bytes of it
};

struct RngFactory {
  static constexpr std::string_view kName = "rng";
  static constexpr std::string_view kPolicy = "rng_device";
  static constexpr bool kIdempotent = true;
  struct Config {};
  struct Resources {
    template <class V>
    void visit(V&&) {}
  };
  /// No keys.
  static Result<Config> parse(const KeyValues& text);
  static Result<Resources> open(const Config&) { return Resources{}; }
  static size_t rings(const Config&) { return 0; }
  static Result<std::unique_ptr<VirtioDevice>> create(const Config&, Resources,
                                                      const DeviceContext& context);
};
static_assert(DeviceFactory<RngFactory>);

}  // namespace crosvm
