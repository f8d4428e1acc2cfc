#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/command_line.h"
#include "cli/net_options.h"
#include "cli/vsock_options.h"
#include "devices/block/block_config.h"
#include "vmm/config.h"

namespace crosvm {

/// The options of `run` with their values read, each for itself.
struct RunOptions {
  Config config;                                 ///< what needs no second look; the rest is below
  std::optional<std::string> hypervisor_device;  ///< `--hypervisor`
  std::optional<std::string> kvm_device;         ///< `--kvm-device`
  std::vector<std::string> oem_strings;          ///< `--oem-strings`
  std::vector<BlockConfig> disks;                ///< of all disk flags, in order
  std::optional<AsyncExecutor> async_executor;
  std::vector<NetRequest> nets;  ///< of `--net`, in order
  OldNetOptions old_nets;
  std::optional<std::string> syslog_tag;
  OldVsockOptions old_vsock;
};

/// Reads the values of the options that this build supports; `check_supported` refuses the others.
/// Errors: invalid_argument in the words of cli.md 1.1.2, for exit status 35.
Result<RunOptions> read_run_options(const CommandLine& line);

/// The VM that the options describe, defaults applied (cli.md 1.6, 1.7). Opens nothing. Errors:
/// invalid_argument naming the options that disagree, for exit status 1.
Result<Config> make_config(RunOptions options);

/// Whether an option of `run` has code that reads it.
bool is_run_option_read(std::string_view name);

}  // namespace crosvm
