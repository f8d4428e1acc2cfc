#pragma once

#include <memory>
#include <string_view>

#include "devices/queue_turns.h"
#include "shout_config.h"
#include "virtio/device_factory.h"

namespace crosvm {

/// Answers each request with the same letters in upper case.
class ShoutDevice : public VirtioDevice {
 public:
  ShoutDevice(const ShoutConfig& config, const DeviceContext& context);

  uint32_t device_type() const override { return 0xfffe; }  // virtio 1.3 §5 has none for us
  std::span<const uint16_t> queue_sizes() const override { return {&config_.queue_size, 1}; }
  uint64_t device_features() const override { return 0; }
  std::span<const std::byte> config_space() const override { return {}; }
  Result<void> start_queue(uint16_t index, Virtqueue queue) override;
  void stop_queue(uint16_t index, StopDone done) override;

 private:
  Result<QueueTurns::Turn> serve();
  Result<uint32_t> answer(const DescriptorChain& chain) const;

  ShoutConfig config_;
  QueueTurns shoutq_;
};

struct ShoutFactory {
  static constexpr std::string_view kName = "shout";
  static constexpr std::string_view kPolicy = "rng_device";
  using Config = ShoutConfig;
  struct Resources {  // no descriptors
    template <class V>
    void visit(V&&) {}
  };
  static Result<Config> parse(const KeyValues& text) { return parse_shout_config(text); }
  static Result<Resources> open(const Config&) { return Resources(); }
  static size_t rings(const Config&) { return 0; }
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources,
                                                      const DeviceContext& context);
};
static_assert(DeviceFactory<ShoutFactory>);

}  // namespace crosvm
