#include "devices/all_devices.h"

#include <algorithm>
#include <array>

#include "devices/block/block_device.h"
#include "devices/console/console_device.h"
#include "devices/net/net_device.h"
#include "devices/net/passt_net_device.h"
#include "devices/net/user_net_device.h"
#include "devices/rng/rng_device.h"
#include "devices/vsock/vsock_device.h"

namespace crosvm {

namespace {
// One line for each device.
constexpr std::array kDevices = {
    device_type<BlockFactory>(),    device_type<ConsoleFactory>(), device_type<NetFactory>(),
    device_type<PasstNetFactory>(), device_type<UserNetFactory>(), device_type<RngFactory>(),
    device_type<VsockFactory>(),
};
}  // namespace

std::span<const DeviceType> all_devices() { return kDevices; }

const DeviceType* find_device(std::string_view name) {
  const DeviceType* found = std::ranges::find(all_devices(), name, &DeviceType::name).base();
  return found == all_devices().data() + all_devices().size() ? nullptr : found;
}

}  // namespace crosvm
