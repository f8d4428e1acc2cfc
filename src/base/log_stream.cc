#include "base/log_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>

#include "base/format.h"

namespace crosvm::log {
namespace {

/// Long enough for a reader that is merely busy, short enough for a VM that must end.
constexpr int kPatienceMs = 100;
/// A pipe that polls as writable takes this much without blocking (POSIX: PIPE_BUF).
constexpr size_t kUnblockedBytes = 4096;

}  // namespace

void LogStream::look_at_descriptor() {
  struct stat status{};
  if (::fstat(descriptor_, &status) != 0) return;
  if (status.st_dev == device_ && status.st_ino == inode_) return;
  device_ = status.st_dev;
  inode_ = status.st_ino;
  own_ = Fd();
  is_socket_ = S_ISSOCK(status.st_mode);
  if (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)) {
    std::string path = format_text("/proc/self/fd/{}", descriptor_);
    // May be refused (a terminal of another user): then polling before each write must do.
    own_ = Fd(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  }
}

void LogStream::write(std::string_view record) {
  look_at_descriptor();
  int patience = stalled_ ? 0 : kPatienceMs;
  if (dropped_ > 0) {
    std::string notice =
        format_text("[{} log records were lost: nobody read standard error]\n", dropped_);
    if (!put(notice, patience)) {
      ++dropped_;
      return;
    }
    dropped_ = 0;
  }
  stalled_ = !put(std::string(record) + "\n", patience);
  if (stalled_) ++dropped_;
}

bool LogStream::put(std::string_view text, int patience_ms) {
  int fd = own_ ? own_.get() : descriptor_;
  while (!text.empty()) {
    pollfd wait{.fd = fd, .events = POLLOUT, .revents = 0};
    if (::poll(&wait, 1, patience_ms) != 1) return false;
    size_t part = std::min(text.size(), kUnblockedBytes);
    ssize_t put = is_socket_ ? ::send(fd, text.data(), part, MSG_DONTWAIT | MSG_NOSIGNAL)
                             : ::write(fd, text.data(), part);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN && patience_ms > 0) {
      patience_ms = 0;  // polls as writable and is not: one more try
      continue;
    }
    if (put <= 0) return false;
    text.remove_prefix(static_cast<size_t>(put));
  }
  return true;
}

}  // namespace crosvm::log
