#pragma once

#include <span>
#include <string_view>

#include "virtio/device_factory.h"

namespace crosvm {

/// Every virtio device of this build.
std::span<const DeviceType> all_devices();
/// The device of that name, or null.
const DeviceType* find_device(std::string_view name);

}  // namespace crosvm
