#pragma once

#include "base/fd.h"

namespace crosvm {

/// As signal_eventfd, for an eventfd that a process has open which is not trusted: that one may
/// take O_NONBLOCK off the open file, which all share, and fill the counter, so that a write would
/// wait for a reader who never comes.
///
/// A full counter is already signalled, and nothing is written. One that is filled between the look
/// and the write holds the write up until the thread gets a signal; the kernel has no write to an
/// eventfd that never waits.
void signal_shared_eventfd(const Fd& fd);

}  // namespace crosvm
