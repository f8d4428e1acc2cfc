#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "cli/command_line.h"
#include "devices/block/block_config.h"
#include "devices/vsock/vsock_config.h"
#include "platform/serial_config.h"
#include "vmm/net_request.h"
#include "vmm/serve_devices.h"

namespace crosvm {

/// The options of `device KIND` and of `devices` (cli.md 3.7, 3.8) with their values read, each for
/// itself.
struct ServeOptions {
  struct Disk {
    std::string socket;
    BlockConfig config;
  };
  struct Serial {
    std::string socket;
    SerialConfig port;
  };

  struct Vsock {
    std::string socket;
    VsockConfig config;
  };
  struct Net {
    std::string socket;
    NetRequest request;
  };

  std::optional<AsyncExecutor> async_executor;
  std::vector<Net> nets;
  // Of `device KIND`:
  std::optional<std::string> socket_path;  ///< `--socket-path`
  std::optional<std::string> old_socket;   ///< `--socket`
  std::optional<uint32_t> fd;
  std::string file;  ///< of a disk
  std::optional<std::string> output_file;
  std::optional<std::string> input_file;
  bool syslog = false;
  std::vector<SerialConfig> ports;
  std::optional<uint64_t> cid;              ///< of a socket device
  std::optional<std::string> vhost_socket;  ///< the kernel's
  std::vector<std::string> connect;
  std::vector<std::string> listen;
  bool mrg_rxbuf = false;
  // Of `devices`:
  bool sandbox = true;
  SandboxOptions sandbox_options;
  std::vector<Disk> disks;
  std::vector<Serial> serials;
  std::vector<Vsock> vsocks;

  bool empty() const { return disks.empty() && serials.empty() && vsocks.empty() && nets.empty(); }
};

/// Whether the subcommand serves devices by vhost-user.
bool is_serve_command(const CommandLine& line);

/// Reads the values of the options that this build supports. Errors: invalid_argument in the words
/// of cli.md 1.1.2, for exit status 35.
Result<ServeOptions> read_serve_options(const CommandLine& line);

/// What `device KIND` or `devices`, whichever `line` is of, is to serve. Errors: invalid_argument
/// naming the options that disagree, for exit status 1.
Result<ServeConfig> make_serve_config(const CommandLine& line, const ServeOptions& options);

/// Divides `vhost=PATH,REST`; PATH may be quoted. Errors: invalid_argument when `vhost` does not
/// come first.
Result<std::pair<std::string, std::string_view>> split_vhost(std::string_view text);

}  // namespace crosvm
