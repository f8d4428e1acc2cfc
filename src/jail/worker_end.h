#pragma once

namespace crosvm {

/// What became of a device's process.
enum class WorkerEnd {
  kClean,       ///< it ended by itself with status 0
  kDied,        ///< it was killed, or ended with another status
  kNotStarted,  ///< it never came to be, or ended before it was in its jail
};

}  // namespace crosvm
