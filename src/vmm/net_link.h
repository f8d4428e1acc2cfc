#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "devices/net/net_config.h"
#include "devices/net/vhost_net.h"
#include "virtio/device_factory.h"
#include "vmm/device_request.h"
#include "vmm/net_request.h"

namespace crosvm {

/// Our side of a network card: its tap is there. What is returned holds all there is of it: a tap
/// that was made for the card goes with it.
struct NetLink {
  DeviceRequest request;
  NetConfig config;  ///< what `request` says
  /// Runs where devices run; null: somebody else moves the packets.
  std::unique_ptr<OpenedDevice> device;
  std::optional<VhostNetResources> kernel;
  /// Another program moves the packets, by vhost-user on this connection to `config.network`.
  Fd vhost_user;
  /// A StreamConnector's end: the device asks there for another connection to `config.network`.
  Fd connector;

  /// `name` names the card in logs; `vm` tells the VM from others, so that the addresses that are
  /// chosen differ. Errors name the card's tap, the cause and the fix.
  static Result<NetLink> open(const NetRequest& request, const std::string& name,
                              std::string_view vm);
};

}  // namespace crosvm
