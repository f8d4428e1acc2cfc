#pragma once

#include <memory>
#include <string_view>

#include "devices/net/net_config.h"
#include "devices/net/user_net_config.h"
#include "virtio/device_factory.h"

namespace crosvm {

/// A card on the network of `--net user`, as all of crosvm knows it but the executable that runs
/// it, which links libslirp (user/user_net_worker.h).
struct UserNetFactory {
  static constexpr std::string_view kName = "net-user";
  static constexpr std::string_view kPolicy = "net_user_device";
  static constexpr std::string_view kProgram = "crosvm-worker-net-user";
  static constexpr bool kHostNetwork = true;
  using Config = UserNetConfig;
  /// It opens sockets itself.
  struct Resources {
    template <class V>
    void visit(V&&) {}
  };
  static Result<Config> parse(const KeyValues& text);
  static Result<Resources> open(const Config&) { return Resources{}; }
  static size_t rings(const Config&) { return 0; }
  /// Not in this program. Errors: not_supported.
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources resources,
                                                      const DeviceContext& context);
};
static_assert(DeviceFactory<UserNetFactory>);

/// The card of such a network; without mac= it always has the same address, as it is alone there.
Result<NetConfig> user_net_card(const UserNetConfig& config);

}  // namespace crosvm
