#include "devices/vsock/vsock_listeners.h"

#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <utility>

#include "base/log.h"

namespace crosvm {

VsockListeners::VsockListeners(EventLoop& loop, std::vector<Fd> sockets, Accepted accepted)
    : loop_(loop), sockets_(std::move(sockets)), accepted_(std::move(accepted)) {}

VsockListeners::~VsockListeners() {
  on_ = false;
  update();
  loop_.cancel(pause_);
}

void VsockListeners::listen(bool on) {
  on_ = on;
  update();
}

void VsockListeners::update() {
  const bool wanted = on_ && pause_ == 0;
  if (wanted == !watches_.empty()) return;
  for (EventLoop::WatchId watch : std::exchange(watches_, {})) loop_.unwatch(watch);
  for (size_t i = 0; wanted && i < sockets_.size(); ++i) {
    auto watch = loop_.watch(sockets_[i], EPOLLIN, [this, i](uint32_t) { accept(i); });
    if (!watch) {
      log::error("vsock: {}", watch.error().what());
      continue;
    }
    watches_.push_back(*watch);
  }
}

/// One at a time: each new connection comes in turn with all that there are.
void VsockListeners::accept(size_t listener) {
  Fd socket(::accept4(sockets_[listener].get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket) return accepted_(listener, std::move(socket));
  if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) pause(errno);
}

void VsockListeners::pause(int error_number) {
  if (log_limit_.allows()) {
    log::warn("vsock: {}",
              Error::from_errno("accepting", "a connection of the host", error_number).what());
  }
  pause_ = loop_.after(std::chrono::seconds(1), [this] {
    pause_ = 0;
    update();
  });
  update();
}

}  // namespace crosvm
