#include "vhost/vhost_user_backend.h"

#include <utility>

#include "vhost/vhost_user_device.h"

namespace crosvm {

VhostUserBackend::Starting::Starting(std::shared_ptr<VhostUserDevice> device)
    : device_(std::move(device)) {}
VhostUserBackend::Starting::Starting(Starting&&) noexcept = default;
VhostUserBackend::Starting& VhostUserBackend::Starting::operator=(Starting&&) noexcept = default;
VhostUserBackend::Starting::~Starting() = default;

VhostUserBackend::VhostUserBackend(std::shared_ptr<VhostUserDevice> device)
    : LoopBackend(device), peer_(std::move(device)) {}

Result<VhostUserBackend::Starting> VhostUserBackend::start(EventLoop& loop, Fd socket,
                                                           VhostUserOptions options) {
  if (options.config_length.value_or(0) > kVhostUserMaxConfig) {
    return fail(Error::invalid(options.name + ": its configuration is too long for vhost-user"));
  }
  const std::string name = options.name;
  auto device = std::make_shared<VhostUserDevice>(loop, std::move(options));
  TRY(with_context(device->begin(std::move(socket)), name));
  return Starting(std::move(device));
}

Result<std::unique_ptr<VhostUserBackend>> VhostUserBackend::Starting::finish() {
  TRY(device_->finish());
  std::unique_ptr<VhostUserBackend> backend(new VhostUserBackend(std::move(device_)));
  backend->post([device = backend->peer_.get()] { device->attach(); });
  return backend;
}

Result<std::unique_ptr<VhostUserBackend>> VhostUserBackend::create(EventLoop& loop, Fd socket,
                                                                   VhostUserOptions options) {
  return TRY(start(loop, std::move(socket), std::move(options))).finish();
}

void VhostUserBackend::reconnect(Fd socket, std::function<void(Result<void>)> done) {
  auto shared = std::make_shared<Fd>(std::move(socket));
  post([device = peer_.get(), shared, done = std::move(done)] {
    device->reconnect(std::move(*shared), done);
  });
}

void VhostUserBackend::give_up() {
  post([device = peer_.get()] { device->give_up(); });
}

}  // namespace crosvm
