#include "vhost/loop_backend.h"

#include <utility>

#include "base/log.h"

namespace crosvm {

// ---- LoopDevice

void LoopDevice::make_rings(DeviceInfo info) {
  info_ = std::move(info);
  FrontendRings::Events events{.needs_reset = [this](const std::string& why) {
    if (complaints_.allows()) log::error("{}: needs a reset: {}", info_.name, why);
    if (listener_) listener_->needs_reset();
  }};
  rings_.emplace(*this, std::move(events), info_.queue_sizes, info_.features);
  rings_->refused = [this](const std::string& what) { complain(what); };
}

void LoopDevice::complain(const std::string& what) {
  if (complaints_.allows()) log::warn("{}: {}", info_.name, what);
}

void LoopDevice::close() {
  std::lock_guard lock(mutex_);
  if (!std::exchange(closed_, true)) closing();
  listener_ = nullptr;
}

void LoopDevice::set_listener(BackendListener* listener) {
  std::lock_guard lock(mutex_);
  listener_ = listener;
  if (listener && last_config_) listener->config_changed(*last_config_);
}

void LoopDevice::tell_config(std::vector<std::byte> config) {
  last_config_ = config;
  if (listener_) listener_->config_changed(std::move(config));
}

// ---- LoopBackend

LoopBackend::~LoopBackend() {
  device_->close();
  // Ends where it may be watching descriptors. A loop that does not run any more does it in its own
  // end.
  EventLoop& loop = device_->loop();
  loop.post([device = std::move(device_)] {});
}

void LoopBackend::post(std::function<void()> verb) {
  {
    std::lock_guard lock(batch_->mutex);
    batch_->open.reset();  // what is posted after it must not be overtaken
  }
  device_->loop().post([device = device_, verb = std::move(verb)] {
    std::lock_guard lock(device->mutex());
    if (device->closed()) return;
    device->before_verb();
    verb();
    device->after_verb();
  });
}

void LoopBackend::post_rings(std::function<void(FrontendRings&)> verb) {
  post([device = device_.get(), verb = std::move(verb)] { verb(device->rings()); });
}

void LoopBackend::set_features(uint64_t features) {
  post_rings([=](FrontendRings& rings) { rings.set_features(features); });
}

void LoopBackend::set_memory(const GuestMemory& memory) {
  post_rings([&memory](FrontendRings& rings) { rings.set_memory(memory); });
}

void LoopBackend::set_vring_num(uint16_t index, uint16_t size) {
  post_rings([=](FrontendRings& rings) { rings.set_vring_num(index, size); });
}

void LoopBackend::set_vring_addr(uint16_t index, const VringAddresses& addresses) {
  post_rings([=](FrontendRings& rings) { rings.set_vring_addr(index, addresses); });
}

void LoopBackend::set_vring_base(uint16_t index, RingPosition position) {
  post_rings([=](FrontendRings& rings) { rings.set_vring_base(index, position); });
}

void LoopBackend::set_vring_kick(uint16_t index, Fd kick) {
  // Shared, as what is posted must be copyable.
  auto shared = std::make_shared<Fd>(std::move(kick));
  post_rings([=](FrontendRings& rings) { rings.set_vring_kick(index, std::move(*shared)); });
}

void LoopBackend::set_vring_call(uint16_t index, Fd call) {
  auto shared = std::make_shared<Fd>(std::move(call));
  post_rings([=](FrontendRings& rings) { rings.set_vring_call(index, std::move(*shared)); });
}

void LoopBackend::set_vring_enable(uint16_t index, bool enable) {
  post_rings([=](FrontendRings& rings) { rings.set_vring_enable(index, enable); });
}

void LoopBackend::get_vring_base(uint16_t index, std::function<void(RingPosition)> done) {
  post_rings([=](FrontendRings& rings) { rings.get_vring_base(index, done); });
}

void LoopBackend::reset(std::function<void()> done) {
  post_rings([=](FrontendRings& rings) { rings.reset(done); });
}

void LoopBackend::set_config(size_t offset, std::vector<std::byte> data) {
  std::lock_guard lock(batch_->mutex);
  if (batch_->open) return batch_->open->add(offset, std::move(data));
  batch_->open = std::make_shared<ConfigWrites>();
  batch_->open->add(offset, std::move(data));
  device_->loop().post([device = device_, shared = batch_, mine = batch_->open] {
    {
      std::lock_guard batch_lock(shared->mutex);
      if (shared->open == mine) shared->open.reset();
    }
    std::lock_guard lock(device->mutex());
    if (!device->closed()) write_batch(*device, *mine);
  });
}

void LoopBackend::write_batch(LoopDevice& device, const ConfigWrites& batch) {
  for (const ConfigWrites::Write& write : batch.writes)
    device.write_config(write.offset, write.data);
  device.after_verb();
}

}  // namespace crosvm
