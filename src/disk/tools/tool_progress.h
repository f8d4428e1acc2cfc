#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "disk/tools/held_signals.h"

namespace crosvm {

/// How far a tool has come: shown to a person at a terminal, on standard error, in one line that is
/// written anew. Says, too, when to give up.
class ToolProgress {
 public:
  /// `object` is what is worked on. Nothing is shown unless `shown` and standard error is a
  /// terminal.
  ToolProgress(std::string object, bool shown);
  /// Leaves the line as it is, and ends it.
  ~ToolProgress();
  ToolProgress(const ToolProgress&) = delete;
  ToolProgress& operator=(const ToolProgress&) = delete;

  /// `done` of `total` bytes. Errors: interrupted when a signal wants the end of the tool.
  Result<void> tell(uint64_t done, uint64_t total);
  /// The same where nobody knows how far it is.
  Result<void> check_signals() const { return signals_.check(); }

 private:
  using Clock = std::chrono::steady_clock;
  void show(uint64_t done, uint64_t total);

  const HeldSignals signals_;
  const std::string object_;
  const bool shown_;
  bool has_line_ = false;
  Clock::time_point next_;
};

/// "1.5 GiB".
std::string readable_bytes(uint64_t bytes);

}  // namespace crosvm
