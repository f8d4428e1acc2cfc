#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"

namespace crosvm {

/// What a device process keeps.
struct JailConfig {
  /// --pivot-root: an absolute path of a directory, which becomes its read-only root. None: a root
  /// of its own that is empty.
  std::optional<std::string> pivot_root = std::nullopt;
  /// The only file, /etc/resolv.conf, of a root of its own, whatever pivot_root says; empty: none.
  std::string resolv_conf = {};
  std::string name = {};  ///< of the process, 15 bytes of it: "block0"
  /// RLIMIT_NOFILE, or the hard limit if that is lower.
  uint64_t descriptors = 4096;
  /// RLIMIT_DATA: private writable memory in bytes, stacks of threads included. Not in sanitizer
  /// builds, whose shadow memory counts.
  uint64_t data_bytes = uint64_t{256} << 20;
  /// RLIMIT_FSIZE: 0 for a device that writes no files.
  uint64_t file_bytes = RLIM_INFINITY;
  bool starts_threads = true;  ///< else RLIMIT_NPROC is 0
};

/// Puts this process, which is in namespaces of its own (clone_into_namespaces), in an empty room,
/// for good: a read-only root with nothing in it, limits, no capability in any set and none to be
/// had, no new privileges, not dumpable. Descriptors stay as they are. Files cannot be opened any
/// more, so whatever needs one comes before: io_uring rings, the log's sinks. The system call
/// filter comes after.
///
/// Errors: the errno of the step that failed, with cause and fix; the process must then exit, it is
/// half inside.
Result<void> enter_jail(const JailConfig& config);

}  // namespace crosvm
