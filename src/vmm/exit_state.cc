#include "vmm/exit_state.h"

namespace crosvm {

int exit_status(ExitState state, bool extended_status) {
  if (!extended_status) return 0;
  switch (state) {
    case ExitState::kStop:
      return 0;
    case ExitState::kReset:
      return 32;
    case ExitState::kCrash:
      return 33;
    case ExitState::kGuestPanic:
      return 34;
    case ExitState::kWatchdog:
      return 36;
  }
  return 0;
}

std::string_view name_of(ExitState state) {
  switch (state) {
    case ExitState::kStop:
      return "stop";
    case ExitState::kReset:
      return "reset";
    case ExitState::kCrash:
      return "crash";
    case ExitState::kGuestPanic:
      return "guest panic";
    case ExitState::kWatchdog:
      return "watchdog reset";
  }
  return "";
}

std::string_view name_of(PanicCode code) {
  switch (code) {
    case PanicCode::kPanicked:
      return "a panic";
    case PanicCode::kCrashKernelLoaded:
      return "a panic and a crash kernel to take over";
    case PanicCode::kUnknown:
      break;
  }
  return "an event of an unknown code";
}

void ExitPolicy::note_panic(PanicCode code) { panicked_ = code == PanicCode::kPanicked; }

ExitState ExitPolicy::from_guest(ExitState state) const {
  return panicked_ ? ExitState::kGuestPanic : state;
}

}  // namespace crosvm
