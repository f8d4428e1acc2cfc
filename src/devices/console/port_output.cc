#include "devices/console/port_output.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

// A pipe that polls writable takes this much without waiting (pipe(7)), a terminal that much.
constexpr size_t kPipeBytes = 4096;
constexpr size_t kTerminalBytes = 256;

std::string now_in_utc() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  ::gmtime_r(&now.tv_sec, &utc);
  return format_text("[ {:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:09} ]: ", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec);
}

}  // namespace

PortOutput::PortOutput(EventLoop& loop, Fd fd, Options options, std::function<void()> drained)
    : loop_(loop), fd_(std::move(fd)), options_(std::move(options)), drained_(std::move(drained)) {
  struct stat status{};
  const bool known = ::fstat(fd_.get(), &status) == 0;
  is_socket_ = known && S_ISSOCK(status.st_mode);
  const bool nonblocking = (::fcntl(fd_.get(), F_GETFL) & O_NONBLOCK) != 0;
  may_wait_ = !is_socket_ && !nonblocking && !(known && S_ISREG(status.st_mode));
}

PortOutput::~PortOutput() {
  if (watch_ != 0) loop_.unwatch(watch_);
}

void PortOutput::write(std::span<const std::byte> bytes) {
  if (gone_ || bytes.empty()) return;
  keep(bytes);
  if (watch_ == 0) flush();
}

bool PortOutput::look_for_hangup() {
  pollfd state{.fd = fd_.get(), .events = 0, .revents = 0};
  if (is_socket_ && !gone_ && ::poll(&state, 1, 0) > 0 && (state.revents & POLLHUP) != 0) {
    lose(EPIPE);
  }
  return gone_;
}

void PortOutput::keep(std::span<const std::byte> bytes) {
  if (!options_.timestamp) {
    kept_.insert(kept_.end(), bytes.begin(), bytes.end());
    return;
  }
  for (std::byte byte : bytes) {
    if (at_line_start_) {
      for (char c : now_in_utc()) kept_.push_back(static_cast<std::byte>(c));
    }
    kept_.push_back(byte);
    at_line_start_ = byte == std::byte{'\n'};
  }
}

void PortOutput::flush() {
  while (kept() > 0) {
    const ssize_t put_now = put(std::span(kept_).subspan(written_));
    if (put_now < 0 && errno == EINTR) continue;
    if (put_now < 0 && errno == EAGAIN) return wait_until_writable();
    if (put_now < 0) return lose(errno);
    losing_ = false;
    written_ += static_cast<size_t>(put_now);
  }
  kept_.clear();
  written_ = 0;
}

ssize_t PortOutput::put(std::span<const std::byte> bytes) {
  if (is_socket_) return ::send(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (may_wait_) {
    pollfd state{.fd = fd_.get(), .events = POLLOUT, .revents = 0};
    if (::poll(&state, 1, 0) == 0) {
      errno = EAGAIN;
      return -1;
    }
    const size_t most = ::isatty(fd_.get()) == 1 ? kTerminalBytes : kPipeBytes;
    bytes = bytes.first(std::min(bytes.size(), most));
  }
  return ::write(fd_.get(), bytes.data(), bytes.size());
}

void PortOutput::wait_until_writable() {
  if (watch_ != 0) return;
  auto watching = loop_.watch(fd_, EPOLLOUT, [this](uint32_t) {
    loop_.unwatch(std::exchange(watch_, 0));
    flush();
    if (watch_ == 0) drained_();
  });
  if (!watching) return lose(static_cast<int>(watching.error().code()));
  watch_ = *watching;
}

void PortOutput::lose(int error_number) {
  // A FIFO may find a new reader, a disk may get room again; a socket's peer does not come back.
  gone_ = is_socket_ && (error_number == EPIPE || error_number == ECONNRESET);
  kept_.clear();
  written_ = 0;
  if (!std::exchange(losing_, true) && log_limit_.allows()) {
    log::error("console output is lost: {}",
               Error::from_errno("writing", options_.object, error_number).what());
  }
}

}  // namespace crosvm
