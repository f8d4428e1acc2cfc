#include "virtio/rig/echo_device.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "virtio/ring.h"

namespace crosvm {
namespace {

class OpenedEcho : public OpenedDevice {
 public:
  explicit OpenedEcho(EchoOptions options) : options_(std::move(options)) {}
  size_t rings() const override { return 0; }
  Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) override {
    return std::make_unique<EchoDevice>(std::move(options_), std::move(context));
  }

 private:
  EchoOptions options_;
};

}  // namespace

void EchoControl::release() {
  released_ = true;
  loop_->post(answer_held_);
}

EchoDevice::EchoDevice(EchoOptions options, DeviceContext context)
    : options_(std::move(options)),
      loop_(context.loop),
      events_(context.events),
      queues_(options_.queue_sizes.size()) {
  if (!options_.control) return;
  options_.control->loop_ = &loop_;
  options_.control->answer_held_ = [this, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.expired()) return;
    for (Queue& queue : queues_) answer_held(queue);
  };
}

EchoDevice::~EchoDevice() = default;

uint64_t EchoDevice::device_features() const { return uint64_t{1} << VIRTIO_F_RING_PACKED; }

void EchoDevice::write_config(size_t offset, std::span<const std::byte> data) {
  std::ranges::copy(data, config_.begin() + static_cast<ptrdiff_t>(offset));
  events_.config_changed();
}

Result<void> EchoDevice::start_queue(uint16_t index, Virtqueue ring) {
  Queue& queue = queues_[index];
  queue.ring = std::move(ring);
  return queue.ring->listen(
      loop_, [this, &queue] { return process(queue); },
      [this](Error error) { events_.needs_reset(error.what()); });
}

void EchoDevice::stop_queue(uint16_t index, StopDone done) {
  Queue& queue = queues_[index];
  queue.ring->unlisten();
  queue.stopping = std::move(done);
  finish_stop(queue);
}

void EchoDevice::suspend_queue(uint16_t index, StopDone done) {
  Queue& queue = queues_[index];
  const RingPosition position = queue.ring->position();
  queue.held.clear();
  queue.ring.reset();
  done(position);
}

void EchoDevice::save_state(DeviceFields& to) const { to.set_bytes(1, config_); }

Result<void> EchoDevice::load_state(const DeviceFields& from) {
  TRY(from.expect_only({1}));
  config_ = TRY(from.get<std::array<std::byte, 8>>(1));
  events_.config_changed();
  return {};
}

Result<void> EchoDevice::take_all(Queue& queue) {
  while (auto chain = TRY(queue.ring->pop())) {
    const bool hold = options_.mode == EchoMode::kHeld && !options_.control->released_;
    if (hold || options_.mode == EchoMode::kShuffled) {
      queue.held.push_back(std::move(*chain));
    } else {
      answer(queue, std::move(*chain));
    }
  }
  return {};
}

Result<void> EchoDevice::process(Queue& queue) {
  Result<void> taken = take_all(queue);  // what came before an error is answered all the same
  if (options_.mode == EchoMode::kShuffled && !queue.held.empty()) answer_later(queue);
  queue.ring->signal_used_if_needed();
  return taken;
}

void EchoDevice::answer_later(Queue& queue) {
  loop_.after(std::chrono::microseconds(50), [this, &queue, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) answer_held(queue);
  });
}

void EchoDevice::answer_held(Queue& queue) {
  if (!queue.ring) return;
  while (!queue.held.empty()) {
    random_ = random_ * 1664525 + 1013904223;
    std::swap(queue.held[(random_ >> 8) % queue.held.size()], queue.held.back());
    DescriptorChain chain = std::move(queue.held.back());
    queue.held.pop_back();
    answer(queue, std::move(chain));
  }
  queue.ring->signal_used_if_needed();
  finish_stop(queue);
}

void EchoDevice::answer(Queue& queue, DescriptorChain chain) {
  const ChainBuffers from = chain.device_readable();
  const ChainBuffers to = chain.device_writable();
  copy_.resize(std::min(from.size(), to.size()));
  CHECK(from.read_bytes(0, copy_));
  CHECK(to.write_bytes(0, copy_));
  queue.ring->push_used(std::move(chain), static_cast<uint32_t>(copy_.size()));
}

void EchoDevice::finish_stop(Queue& queue) {
  if (!queue.stopping || queue.ring->in_flight() != 0) return;
  const RingPosition position = queue.ring->position();
  queue.ring.reset();
  std::exchange(queue.stopping, nullptr)(position);
}

std::unique_ptr<OpenedDevice> open_echo(EchoOptions options) {
  return std::make_unique<OpenedEcho>(std::move(options));
}

Result<EchoFactory::Config> EchoFactory::parse(const KeyValues& text) {
  Config config;
  TRY(text.read({kv_key("shuffled", config.shuffled), kv_key("queues", config.queues),
                 kv_key("size", config.size)}));
  if (!std::has_single_bit(config.size) || config.size > kMaxQueueSize) {
    return fail(Error::invalid("size must be a power of two up to 32768"));
  }
  return config;
}

Result<std::unique_ptr<VirtioDevice>> EchoFactory::create(const Config& config, Resources,
                                                          DeviceContext context) {
  EchoOptions options{.mode = config.shuffled ? EchoMode::kShuffled : EchoMode::kAtOnce,
                      .queue_sizes = std::vector<uint16_t>(config.queues, config.size)};
  return std::make_unique<EchoDevice>(std::move(options), std::move(context));
}

}  // namespace crosvm
