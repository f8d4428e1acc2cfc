#include "virtio/rig/inline_backend.h"

#include "base/event_loop.h"

namespace crosvm {

Result<std::unique_ptr<InlineBackend>> InlineBackend::create(EventLoop& loop,
                                                             const std::string& name,
                                                             OpenedDevice& device) {
  std::unique_ptr<InlineBackend> backend(new InlineBackend(loop));
  InlineBackend* self = backend.get();
  DeviceHost::Events events{.config_changed =
                                [self](std::vector<std::byte> config) {
                                  if (self->listener_) {
                                    self->listener_->config_changed(std::move(config));
                                  }
                                },
                            .needs_reset =
                                [self] {
                                  if (self->listener_) self->listener_->needs_reset();
                                }};
  // Without io_uring: completions would come when the kernel likes.
  backend->host_ = TRY(DeviceHost::create(name, std::move(events), [&](DeviceEvents& to_host) {
    return device.create({.loop = loop, .events = to_host, .rings = {}});
  }));
  backend->info_ = backend->host_->info();
  return backend;
}

InlineBackend::~InlineBackend() {
  bool stopped = false;
  host_->reset([&] { stopped = true; });
  while (!stopped) CHECK(loop_.run_once(std::chrono::milliseconds(100)));
}

}  // namespace crosvm
