#include "delayed_device.h"

#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

constexpr uint64_t kSector = 512;

/// A request to the device mapper, and the room for its table.
struct MapperCall {
  dm_ioctl header = {};
  std::array<char, 512> rest = {};

  explicit MapperCall(const std::string& name, uint32_t flags = 0) {
    header.version[0] = DM_VERSION_MAJOR;
    header.data_size = sizeof(*this);
    header.data_start = sizeof(header);
    header.flags = flags;
    name.copy(header.name, sizeof(header.name) - 1);
  }
  /// One target for the whole device.
  void add_target(uint64_t sectors, std::string_view type, const std::string& parameters) {
    dm_target_spec target = {};
    target.length = sectors;
    type.copy(target.target_type, sizeof(target.target_type) - 1);
    std::memcpy(rest.data(), &target, sizeof(target));
    parameters.copy(rest.data() + sizeof(target), rest.size() - sizeof(target) - 1);
    header.target_count = 1;
  }
  Result<void> make(const Fd& control, unsigned long request, const char* doing) {
    if (::ioctl(control.get(), request, this) == 0) return {};
    return fail(Error::from_errno(doing, header.name));
  }
};

}  // namespace

DelayedDevice::DelayedDevice(DelayedDevice&& other) noexcept
    : control_(std::move(other.control_)),
      loop_(std::move(other.loop_)),
      name_(std::exchange(other.name_, {})),
      path_(std::move(other.path_)) {}

DelayedDevice::~DelayedDevice() {
  if (name_.empty()) return;
  // A process that is just ending may still have it open.
  for (int tries = 0; tries < 500; ++tries) {
    if (MapperCall(name_).make(control_, DM_DEV_REMOVE, "removing")) return;
    ::usleep(10'000);
  }
}

Result<uint32_t> DelayedDevice::attach_loop(const Fd& file) {
  const Fd control = TRY(open_path("/dev/loop-control", O_RDWR));
  for (int tries = 0; tries < 10; ++tries) {  // others may take the free one before us
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return fail(Error::from_errno("looking for", "a free loop device"));
    loop_ = TRY(open_path(format_text("/dev/loop{}", number), O_RDWR));
    loop_config config{};
    config.fd = static_cast<uint32_t>(file.get());
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (::ioctl(loop_.get(), LOOP_CONFIGURE, &config) == 0) return static_cast<uint32_t>(number);
    if (errno != EBUSY) return fail(Error::from_errno("attaching", "a loop device"));
  }
  return fail(Error(std::errc::device_or_resource_busy, "no loop device stayed free"));
}

Result<DelayedDevice> DelayedDevice::create(const Fd& file, uint64_t bytes,
                                            std::chrono::milliseconds write_delay) {
  DelayedDevice device;
  device.control_ = TRY(open_path("/dev/mapper/control", O_RDWR));
  const uint32_t loop = TRY(device.attach_loop(file));
  const std::string name = format_text("crosvm-delay-{}", ::getpid());
  MapperCall create(name);
  TRY(create.make(device.control_, DM_DEV_CREATE, "creating"));
  device.name_ = name;
  device.path_ = format_text("/dev/dm-{}", minor(create.header.dev));
  MapperCall load(name);
  const std::string lower = format_text("/dev/loop{} 0", loop);
  load.add_target(bytes / kSector, "delay",
                  format_text("{} 0 {} {}", lower, lower, write_delay.count()));
  TRY(load.make(device.control_, DM_TABLE_LOAD, "loading the table of"));
  TRY(MapperCall(name).make(device.control_, DM_DEV_SUSPEND, "starting"));
  return device;
}

}  // namespace crosvm
