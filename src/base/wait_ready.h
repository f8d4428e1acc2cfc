#pragma once

#include <chrono>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

enum class Waited {
  kReady,
  kLate,         ///< the time is up
  kInterrupted,  ///< whoever waits is to stop
};

/// Waits until `fd` has one of `events` (POLLIN, …), or was hung up. An empty `fd` has none ever:
/// then it is the time that is waited for.
///
/// `interrupt`, if given, ends the wait while it can be read from: an eventfd that stays signalled,
/// as one wait may follow another. It wins over `fd`, whose peer may always have something ready. A
/// signal alone ends nothing. Errors: the errno of poll.
Result<Waited> wait_ready(const Fd& fd, short events, std::chrono::steady_clock::time_point until,
                          const Fd* interrupt = nullptr);

/// What to say of a wait for `what` that was interrupted; its code is `interrupted`.
Error interrupted_waiting_for(std::string_view what);

}  // namespace crosvm
