#include "virtio/rig/window_device.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace crosvm {
namespace {

class OpenedWindow : public OpenedDevice {
 public:
  OpenedWindow(std::vector<uint64_t> sizes, Fd file)
      : sizes_(std::move(sizes)), file_(std::move(file)) {}
  size_t rings() const override { return 0; }
  Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) override {
    return std::make_unique<WindowDevice>(std::move(sizes_), std::move(file_), std::move(context));
  }

 private:
  std::vector<uint64_t> sizes_;
  Fd file_;
};

}  // namespace

std::array<std::byte, 8> WindowCommand::bytes() const {
  return std::bit_cast<std::array<std::byte, 8>>(*this);
}

WindowDevice::WindowDevice(std::vector<uint64_t> sizes, Fd file, DeviceContext context)
    : EchoDevice(EchoOptions{.queue_sizes = {16, 16}},
                 {.loop = context.loop, .events = context.events, .rings = {}}),
      sizes_(std::move(sizes)),
      file_(std::move(file)),
      events_(context.events) {}

void WindowDevice::write_config(size_t offset, std::span<const std::byte> data) {
  std::ranges::copy(data, config_.begin() + static_cast<ptrdiff_t>(offset));
  const auto command = std::bit_cast<WindowCommand>(config_);
  if (command.what != WindowCommand::kMap && command.what != WindowCommand::kUnmap) return;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const SharedPlace place{
      .id = command.id, .offset = command.page * page, .length = command.pages * page};
  auto done = [this, command, alive = std::weak_ptr<bool>(alive_)](const Result<void>& result) {
    if (!alive.expired()) finish(command, result.has_value());
  };
  if (command.what == WindowCommand::kUnmap) return events_.unmap_shared(place, std::move(done));
  auto file = file_.duplicate();
  if (!file) return finish(command, false);
  events_.map_shared(place,
                     {.file = std::move(*file),
                      .offset = command.file_page * page,
                      .writable = command.writable != 0},
                     std::move(done));
}

void WindowDevice::finish(WindowCommand command, bool good) {
  command.result = good ? WindowCommand::kDone : WindowCommand::kFailed;
  config_ = command.bytes();
  events_.config_changed();
}

std::unique_ptr<OpenedDevice> open_window(std::vector<uint64_t> sizes, Fd file) {
  return std::make_unique<OpenedWindow>(std::move(sizes), std::move(file));
}

}  // namespace crosvm
