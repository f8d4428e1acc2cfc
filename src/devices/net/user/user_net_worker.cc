#include "devices/net/user/user_net_worker.h"

#include "devices/net/net_device.h"
#include "devices/net/user/user_net_port.h"

namespace crosvm {
Result<std::unique_ptr<VirtioDevice>> UserNetWorkerFactory::create(const Config& config, Resources,
                                                                   const DeviceContext& context) {
  auto make_port = [&](EventLoop& loop, size_t) -> Result<std::unique_ptr<NetPort>> {
    return TRY(UserNetPort::create(loop, config));
  };
  return TRY(NetDevice::create(TRY(user_net_card(config)), make_port, context));
}

const DeviceType* find_user_net_device(std::string_view name) {
  static constexpr DeviceType kDevice = device_type<UserNetWorkerFactory>();
  return name == kDevice.name ? &kDevice : nullptr;
}

}  // namespace crosvm
