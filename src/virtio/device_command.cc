#include "virtio/device_command.h"

#include <memory>
#include <utility>

#include "base/format.h"
#include "virtio/device_backend.h"
#include "virtio/virtio_device.h"

namespace crosvm {
namespace {

class Surely {
 public:
  explicit Surely(CommandDone done) : done_(std::move(done)) {}
  Surely(const Surely&) = delete;
  Surely& operator=(const Surely&) = delete;
  ~Surely() {
    tell(fail(Error(std::errc::not_connected, "the device has gone before it had an answer")));
  }
  void tell(Result<std::string> answer) {
    if (auto done = std::exchange(done_, nullptr)) done(std::move(answer));
  }

 private:
  CommandDone done_;
};

}  // namespace

CommandDone surely(CommandDone done) {
  return [once = std::make_shared<Surely>(std::move(done))](Result<std::string> answer) {
    once->tell(std::move(answer));
  };
}

Result<std::string> unknown_command(const DeviceCommand& command) {
  return fail(Error(std::errc::not_supported,
                    format_text("a device of this kind does not know '{}'", command.name)));
}

void VirtioDevice::command(DeviceCommand command, CommandDone done) {
  done(unknown_command(command));
}

void DeviceBackend::command(DeviceCommand command, CommandDone done) {
  done(unknown_command(command));
}

}  // namespace crosvm
