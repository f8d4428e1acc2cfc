#pragma once

#include <optional>
#include <string>

namespace crosvm {

/// The sandbox flags (cli.md 1.4 N).
struct SandboxOptions {
  std::optional<std::string> pivot_root;  ///< none: an empty root for each process
  std::optional<std::string> seccomp_policy_dir;
  bool seccomp_log_failures = false;
};

}  // namespace crosvm
