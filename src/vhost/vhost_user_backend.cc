#include "vhost/vhost_user_backend.h"

#include <mutex>
#include <utility>

#include "base/format.h"
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

Result<std::unique_ptr<VhostUserBackend>> VhostUserBackend::Starting::finish(const Fd* interrupt) {
  TRY(device_->finish(interrupt));
  std::unique_ptr<VhostUserBackend> backend(new VhostUserBackend(std::move(device_)));
  backend->post([device = backend->peer_.get()] { device->attach(); });
  return backend;
}

Result<std::unique_ptr<VhostUserBackend>> VhostUserBackend::create(EventLoop& loop, Fd socket,
                                                                   VhostUserOptions options,
                                                                   const Fd* interrupt) {
  return TRY(start(loop, std::move(socket), std::move(options))).finish(interrupt);
}

void VhostUserBackend::start_dirty_log(Fd log, uint64_t bytes,
                                       std::function<void(Result<void>)> done) {
  auto shared = std::make_shared<Fd>(std::move(log));
  post([device = peer_.get(), shared, bytes, done = std::move(done)] {
    device->start_dirty_log(std::move(*shared), bytes, done);
  });
}

void VhostUserBackend::stop_dirty_log(std::function<void(Result<void>)> done) {
  post([device = peer_.get(), done = std::move(done)] { device->stop_dirty_log(done); });
}

void VhostUserBackend::save_state(std::function<void(Result<std::vector<std::byte>>)> done) {
  post([device = peer_.get(), done = std::move(done)] { device->save_state(done); });
}

void VhostUserBackend::load_state(std::vector<std::byte> state,
                                  std::function<void(Result<void>)> done) {
  post([device = peer_.get(), state = std::move(state), done = std::move(done)] {
    device->load_state(state, done);
  });
}

void VhostUserBackend::command(DeviceCommand command, CommandDone done) {
  const auto& carry = peer_->options().command;
  if (!carry) {
    return done(fail(Error(
        std::errc::not_supported,
        format_text("{}: another program serves it by vhost-user, which has no words for '{}'; ask "
                    "that program",
                    info().name, command.name))));
  }
  auto shared = std::make_shared<DeviceCommand>(std::move(command));
  post([&carry, shared, done = surely(std::move(done))] { carry(std::move(*shared), done); });
}

bool VhostUserBackend::Remote::alive() const {
  const auto device = device_.lock();
  if (!device) return false;
  std::lock_guard lock(device->mutex());
  return !device->closed();
}

void VhostUserBackend::Remote::post(std::function<void(VhostUserDevice&)> call) const {
  const auto device = device_.lock();
  if (!device) return;
  device->loop().post([device, call = std::move(call)] {
    std::lock_guard lock(device->mutex());
    if (device->closed()) return;
    device->before_verb();
    call(*device);
    device->after_verb();
  });
}

void VhostUserBackend::Remote::reconnect(Fd socket, std::function<void(Result<void>)> done) const {
  auto shared = std::make_shared<Fd>(std::move(socket));
  post([shared, done = std::move(done)](VhostUserDevice& device) {
    device.reconnect(std::move(*shared), done);
  });
}

void VhostUserBackend::Remote::give_up() const {
  post([](VhostUserDevice& device) { device.give_up(); });
}

}  // namespace crosvm
