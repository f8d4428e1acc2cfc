#pragma once

#include <chrono>
#include <cstddef>
#include <mutex>
#include <string>
#include <utility>

namespace crosvm {

/// Lets so many records a second through, so that a guest or a client cannot flood the log. Any
/// thread may ask.
///
///     if (limit_.allows()) log::error("...");
class LogLimit {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr size_t kPerSecond = 20;

  /// `what` names the records in the plural, like "control socket errors": how many were held back
  /// is logged when the next one is let through.
  explicit LogLimit(std::string what, size_t per_second = kPerSecond)
      : what_(std::move(what)), per_second_(per_second) {}

  /// Whether a record may be written at `now`; counts it either way.
  bool allows(Clock::time_point now = Clock::now());

 private:
  const std::string what_;
  const size_t per_second_;
  std::mutex mutex_;
  Clock::time_point window_{};  // when the running second began; guarded by mutex_, as are these:
  size_t used_ = 0;
  size_t held_back_ = 0;
};

}  // namespace crosvm
