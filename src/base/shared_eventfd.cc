#include "base/shared_eventfd.h"

#include <poll.h>

#include <cerrno>
#include <cstdint>

namespace crosvm {

void signal_shared_eventfd(const Fd& fd) {
  pollfd room{.fd = fd.get(), .events = POLLOUT, .revents = 0};
  const uint64_t one = 1;
  // Looked at again after each signal.
  while (::poll(&room, 1, 0) > 0) {
    if (::write(fd.get(), &one, sizeof(one)) >= 0 || errno != EINTR) return;
  }
}

}  // namespace crosvm
