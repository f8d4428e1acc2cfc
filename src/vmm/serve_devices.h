#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "jail/sandbox_options.h"
#include "platform/serial_config.h"
#include "vmm/net_request.h"

namespace crosvm {

/// A device that is served by vhost-user, to one front-end.
struct ServedDevice {
  std::string type;                   ///< its name in all_devices()
  std::string name;                   ///< names it in logs: "block-0"
  std::string text{};                 ///< its configuration; not of consoles
  std::vector<SerialConfig> ports{};  ///< of a console
  std::optional<NetRequest> net{};    ///< of a network card
  std::string socket{};               ///< path to listen at
  std::optional<uint32_t> fd{};       ///< instead: the connected socket that we were started with
};

/// What `crosvm device` and `crosvm devices` are to serve (cli.md 3.7, 3.8).
struct ServeConfig {
  std::vector<ServedDevice> devices;
  /// Each in a jailed process of its own. Without that all are served by this process.
  bool jailed = false;
  /// This process serves one kind, and confines itself by the devices' system call policy once the
  /// front-end of each has come.
  bool confined = false;
  SandboxOptions sandbox_options;
};

/// Serves the devices until the front-end of each has gone, or a signal asks for the end. Errors:
/// what could not be opened or listened on, naming the device, the cause and the fix; and without
/// jails that a front-end broke the protocol.
Result<void> serve_devices(const ServeConfig& config);

}  // namespace crosvm
