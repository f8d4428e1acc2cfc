#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace crosvm {

/// The sandbox flags (cli.md 1.4 N).
struct SandboxOptions {
  std::optional<std::string> pivot_root{};  ///< none: an empty root for each process
  std::optional<std::string> seccomp_policy_dir{};
  bool seccomp_log_failures = false;
  /// `--restart-devices` (ours): kinds of devices, DeviceType::name, whose process is started anew
  /// when it dies.
  std::vector<std::string> restart_devices{};
  size_t restarts_a_minute = 3;  ///< of one device; more end the VM
};

}  // namespace crosvm
