#pragma once

#include <string_view>

#include "pci/pvpanic.h"

namespace crosvm {

/// How a VM ended (cli.md 6.1).
enum class ExitState {
  kStop,        ///< by the guest, the control socket or a signal
  kReset,       ///< the guest asked for a reset
  kCrash,       ///< a vCPU or a device process failed for good
  kGuestPanic,  ///< the guest's kernel panicked
  kWatchdog,    ///< the watchdog expired
};

/// Exit status of the process for `state`: 0, 32, 33, 34, 36 with `--extended-status`, else 0.
int exit_status(ExitState state, bool extended_status);

/// "stop", "reset", …, for the log.
std::string_view name_of(ExitState state);
/// "a panic", "a loaded crash kernel", …, for the log.
std::string_view name_of(PanicCode code);

/// Turns what happened into how the VM ended: a guest that said it panicked ends as kGuestPanic
/// whichever way it then goes, unless the end came from outside.
class ExitPolicy {
 public:
  void note_panic(PanicCode code);
  /// The guest, a vCPU or a watchdog ended the VM.
  ExitState from_guest(ExitState state) const;

 private:
  bool panicked_ = false;
};

}  // namespace crosvm
