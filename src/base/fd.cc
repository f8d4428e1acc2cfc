#include "base/fd.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <charconv>
#include <string_view>

namespace crosvm {
namespace {

Result<Fd> duplicate_inherited(const std::string& path) {
  std::string_view digits = std::string_view(path).substr(kOwnDescriptors.size());
  int number = -1;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size() || number < 0) {
    return fail(Error::invalid("opening " + path + ": not a descriptor number"));
  }
  int flags = ::fcntl(number, F_GETFD);
  if (flags < 0) return fail(Error::from_errno("opening", path));
  if ((flags & FD_CLOEXEC) != 0) {  // one of our own, not one handed to us
    return fail(Error::from_errno("opening", path, EBADF));
  }
  Fd copy(::fcntl(number, F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail(Error::from_errno("duplicating", path));
  return copy;
}

}  // namespace

Result<Fd> Fd::duplicate() const {
  Fd copy(::fcntl(raw_, F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail(Error::from_errno("duplicating", "descriptor " + std::to_string(raw_)));
  return copy;
}

Result<Fd> open_path(const std::string& path, int flags, unsigned mode) {
  if (path.starts_with(kOwnDescriptors)) return duplicate_inherited(path);
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) return fail(Error::from_errno("opening", path));
  return fd;
}

Result<void> ensure_standard_descriptors() {
  for (int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(number, F_GETFD) >= 0) continue;
    // The lowest free number, which is this one.
    if (::open("/dev/null", O_RDWR) < 0) return fail(Error::from_errno("opening", "/dev/null"));
  }
  return {};
}

Result<size_t> read_full(const Fd& fd, std::span<std::byte> buffer, const std::string& object) {
  size_t done = 0;
  while (done < buffer.size()) {
    ssize_t got = ::read(fd.get(), buffer.data() + done, buffer.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno("reading", object));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Result<size_t> read_full_at(const Fd& fd, uint64_t offset, std::span<std::byte> buffer,
                            const std::string& object) {
  size_t done = 0;
  while (done < buffer.size()) {
    ssize_t got = ::pread(fd.get(), buffer.data() + done, buffer.size() - done,
                          static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno("reading", object));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

Result<void> write_full(const Fd& fd, std::span<const std::byte> buffer,
                        const std::string& object) {
  while (!buffer.empty()) {
    ssize_t put = ::write(fd.get(), buffer.data(), buffer.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN) {
      pollfd wait{.fd = fd.get(), .events = POLLOUT, .revents = 0};
      ::poll(&wait, 1, -1);
      continue;
    }
    if (put < 0) return fail(Error::from_errno("writing", object));
    buffer = buffer.subspan(static_cast<size_t>(put));
  }
  return {};
}

Result<uint64_t> file_size(const Fd& fd, const std::string& object) {
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail(Error::from_errno("examining", object));
  if (S_ISREG(status.st_mode)) return static_cast<uint64_t>(status.st_size);
  if (S_ISBLK(status.st_mode)) {
    uint64_t bytes = 0;
    if (::ioctl(fd.get(), BLKGETSIZE64, &bytes) != 0) {
      return fail(Error::from_errno("measuring", object));
    }
    return bytes;
  }
  return fail(Error::invalid(object + (S_ISDIR(status.st_mode) ? " is a directory, not a file"
                                                               : " is not a regular file")));
}

Result<Fd> make_eventfd() {
  Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return fail(Error::from_errno("creating", "an eventfd"));
  return fd;
}

void signal_eventfd(const Fd& fd) {
  uint64_t one = 1;
  while (::write(fd.get(), &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

uint64_t drain_eventfd(const Fd& fd) {
  uint64_t count = 0;
  const iovec place = {.iov_base = &count, .iov_len = sizeof(count)};
  ssize_t got;
  do {
    // Whether it blocks is a flag of the open file, which a peer that has it too may change, and
    // some do for a moment.
    got = ::preadv2(fd.get(), &place, 1, -1, RWF_NOWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EOPNOTSUPP) {  // before Linux 5.8
    got = ::read(fd.get(), &count, sizeof(count));
  }
  return got == static_cast<ssize_t>(sizeof(count)) ? count : 0;
}

}  // namespace crosvm
