#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "virtio/device_factory.h"
#include "virtio/virtio_device.h"

namespace crosvm {

/// How an EchoDevice answers.
enum class EchoMode {
  kAtOnce,    ///< while it drains its queue
  kShuffled,  ///< later, in another order
  kHeld,      ///< when the test says so
};

/// A test's hand on an EchoDevice that runs on some loop. Outlives the device.
class EchoControl {
 public:
  /// Lets a device in mode kHeld answer what it holds, and what comes later at once. From any
  /// thread.
  void release();

 private:
  friend class EchoDevice;
  std::atomic<bool> released_ = false;
  std::function<void()> answer_held_;  // set before the device's first queue starts
  EventLoop* loop_ = nullptr;
};

struct EchoOptions {
  EchoMode mode = EchoMode::kAtOnce;
  std::vector<uint16_t> queue_sizes{256, 256};
  EchoControl* control = nullptr;  ///< for kHeld
};

/// A device for tests of rings and backends: writes what it reads, as much as there is room for.
/// Eight bytes of configuration take what the driver writes, and say so; they are its state.
class EchoDevice : public VirtioDevice {
 public:
  EchoDevice(EchoOptions options, DeviceContext context);
  ~EchoDevice() override;

  uint32_t device_type() const override { return 0xffff; }
  std::span<const uint16_t> queue_sizes() const override { return options_.queue_sizes; }
  uint64_t device_features() const override;
  std::span<const std::byte> config_space() const override { return config_; }
  void write_config(size_t offset, std::span<const std::byte> data) override;
  Result<void> start_queue(uint16_t index, Virtqueue queue) override;
  void stop_queue(uint16_t index, StopDone done) override;
  void suspend_queue(uint16_t index, StopDone done) override;
  void save_state(DeviceFields& to) const override;
  Result<void> load_state(const DeviceFields& from) override;

 private:
  struct Queue {
    std::optional<Virtqueue> ring;
    std::vector<DescriptorChain> held;
    StopDone stopping;
  };
  Result<void> process(Queue& queue);
  Result<void> take_all(Queue& queue);
  void answer_later(Queue& queue);
  void answer_held(Queue& queue);
  void answer(Queue& queue, DescriptorChain chain);
  void finish_stop(Queue& queue);

  EchoOptions options_;
  EventLoop& loop_;
  DeviceEvents& events_;
  std::array<std::byte, 8> config_{};
  std::vector<Queue> queues_;
  std::vector<std::byte> copy_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  uint32_t random_ = 1;
};

/// An EchoDevice that is ready to run: `Rig::create(open_echo({…}))`.
std::unique_ptr<OpenedDevice> open_echo(EchoOptions options);

/// The same from a text: `shuffled`, `queues=N`, `size=N`.
struct EchoFactory {
  static constexpr std::string_view kName = "echo";
  static constexpr std::string_view kPolicy = "rng_device";
  struct Config {
    bool shuffled = false;
    uint16_t queues = 2;
    uint16_t size = 256;
  };
  struct Resources {
    template <class V>
    void visit(V&&) {}
  };
  static Result<Config> parse(const KeyValues& text);
  static Result<Resources> open(const Config&) { return Resources(); }
  static size_t rings(const Config&) { return 0; }
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources resources,
                                                      DeviceContext context);
};
static_assert(DeviceFactory<EchoFactory>);

}  // namespace crosvm
