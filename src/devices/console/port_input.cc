#include "devices/console/port_input.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/log.h"

namespace crosvm {

PortInput::PortInput(EventLoop& loop, Fd fd, std::string object, std::function<void()> readable)
    : loop_(loop), fd_(std::move(fd)), object_(std::move(object)), readable_(std::move(readable)) {}

PortInput::~PortInput() { stop_waiting(); }

std::optional<size_t> PortInput::read(std::span<std::byte> to) {
  if (!fd_) return 0;
  // A FIFO that nobody has written to yet reads as ended, but does not poll so.
  pollfd state{.fd = fd_.get(), .events = POLLIN, .revents = 0};
  const int ready = ::poll(&state, 1, 0);
  if (ready < 0 && errno != EINTR) return end(errno);
  if (ready <= 0) return wait();
  const ssize_t got = ::read(fd_.get(), to.data(), to.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return wait();
  if (got <= 0) return end(got < 0 ? errno : 0);
  return static_cast<size_t>(got);
}

std::optional<size_t> PortInput::wait() {
  if (watch_ != 0) return std::nullopt;
  auto watching = loop_.watch(fd_, EPOLLIN, [this](uint32_t) {
    stop_waiting();
    readable_();
  });
  if (!watching) return end(static_cast<int>(watching.error().code()));
  watch_ = *watching;
  return std::nullopt;
}

std::optional<size_t> PortInput::end(int error_number) {
  if (error_number != 0) {
    log::error("console input ends: {}",
               Error::from_errno("reading", object_, error_number).what());
  }
  stop_waiting();
  fd_ = Fd();
  return 0;
}

void PortInput::stop_waiting() {
  if (watch_ != 0) loop_.unwatch(std::exchange(watch_, 0));
}

}  // namespace crosvm
