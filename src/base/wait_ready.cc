#include "base/wait_ready.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <iterator>

#include "base/format.h"

namespace crosvm {

Result<Waited> wait_ready(const Fd& fd, short events, std::chrono::steady_clock::time_point until,
                          const Fd* interrupt) {
  using Clock = std::chrono::steady_clock;
  pollfd waits[] = {{.fd = fd.get(), .events = events, .revents = 0},
                    {.fd = interrupt ? interrupt->get() : -1, .events = POLLIN, .revents = 0}};
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    const int ready =
        ::poll(waits, std::size(waits), static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return fail(Error::from_errno("waiting for", "a descriptor"));
    if (waits[1].revents != 0) return Waited::kInterrupted;
    if (waits[0].revents != 0) return Waited::kReady;
    if (left <= 0) return Waited::kLate;
  }
}

Error interrupted_waiting_for(std::string_view what) {
  return Error(std::errc::interrupted, format_text("waiting for {} was interrupted", what));
}

}  // namespace crosvm
