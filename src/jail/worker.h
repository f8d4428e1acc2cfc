#pragma once

#include <string_view>

#include "virtio/device_factory.h"

namespace crosvm {

/// Whether this process was started as a worker: `argv[0]` says so.
bool is_worker(int argc, const char* const* argv);

/// The life of a worker: takes its order, enters its jail, serves its device until the VMM lets go
/// of it. Returns the exit status. `find` gives the kinds of devices that this program has; null
/// for one that it has not.
int worker_main(const DeviceType* (*find)(std::string_view name));

}  // namespace crosvm
