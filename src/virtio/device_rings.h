#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/io_uring.h"

namespace crosvm {

/// As many io_uring instances as the device `name` can use (OpenedDevice::rings), or none, said in
/// the log, where the host has none to give. `held`: as in IoUring::create.
std::vector<IoUring> make_device_rings(const std::string& name, size_t count, const Fd& held = {});

}  // namespace crosvm
