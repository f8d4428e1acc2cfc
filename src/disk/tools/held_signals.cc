#include "disk/tools/held_signals.h"

namespace crosvm {

HeldSignals::HeldSignals() {
  ::sigemptyset(&held_);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&held_, number);
  ::pthread_sigmask(SIG_BLOCK, &held_, &before_);
}

HeldSignals::~HeldSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

Result<void> HeldSignals::check() const {
  sigset_t come;
  if (::sigpending(&come) != 0) return {};
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    if (::sigismember(&come, number) == 1) {
      return fail(Error(std::errc::interrupted, "interrupted; nothing was changed"));
    }
  }
  return {};
}

}  // namespace crosvm
