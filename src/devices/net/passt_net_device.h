#pragma once

#include <memory>
#include <string_view>

#include "base/fd.h"
#include "devices/net/net_config.h"
#include "virtio/device_factory.h"

namespace crosvm {

/// The descriptors of a card on passt.
struct PasstNetResources {
  Fd socket;     ///< connected
  Fd connector;  ///< to a StreamConnector; none: a connection that is lost stays lost
  template <class V>
  void visit(V&& each) {
    each(socket);
    each(connector);
  }
};

/// A card on passt, or anybody else who takes frames on a stream socket (StreamPort): `network` of
/// its configuration is the socket's path.
struct PasstNetFactory {
  static constexpr std::string_view kName = "net-passt";
  static constexpr std::string_view kPolicy = "net_device";
  using Config = NetConfig;
  using Resources = PasstNetResources;
  static Result<Config> parse(const KeyValues& text) { return NetConfig::parse(text); }
  static Result<Resources> open(const Config& config);
  static size_t rings(const Config&) { return 0; }
  static Result<std::unique_ptr<VirtioDevice>> create(const Config& config, Resources resources,
                                                      const DeviceContext& context);
};
static_assert(DeviceFactory<PasstNetFactory>);

}  // namespace crosvm
