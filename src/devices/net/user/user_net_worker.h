#pragma once

#include <memory>

#include "devices/net/user_net_device.h"

namespace crosvm {

/// The same device in the executable that can run it.
struct UserNetWorkerFactory : UserNetFactory {
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources resources,
                                                      const DeviceContext& context);
};
static_assert(DeviceFactory<UserNetWorkerFactory>);

/// What that executable has, for worker_main.
const DeviceType* find_user_net_device(std::string_view name);

}  // namespace crosvm
