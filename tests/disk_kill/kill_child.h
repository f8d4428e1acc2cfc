#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/result.h"
#include "kill_log.h"

namespace crosvm::test {

/// What a process does to an image until it is killed.
struct KillWork {
  std::string path;
  bool is_raw = false;  ///< else it is what it says
  bool uring = false;   ///< else threads
  bool direct = false;
  uint64_t seed = 0;
  uint64_t first_number = 0;  ///< of the sectors that it writes
  uint64_t least_sectors = 0;
  uint64_t most_sectors = 0;  ///< the disk is resized within these
  bool may_resize = true;
};

/// Starts one, whose events are in `log`. Errors: those of posix_spawn.
Result<pid_t> start_kill_child(const KillWork& work, const KillLog& log);

/// Whether this process is such a one.
bool is_kill_child(int argc, char** argv);
/// Writes, discards, zeroes, flushes, resizes, closes and opens the disk, several requests at a
/// time. Returns only when something goes wrong, which it says on standard error.
int work_until_killed(char** argv);

}  // namespace crosvm::test
