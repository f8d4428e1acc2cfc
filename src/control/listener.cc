#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <ctime>

#include "base/format.h"
#include "base/socket_file.h"
#include "base/unix_address.h"
#include "control/socket.h"

namespace crosvm::control {

namespace {

constexpr int kBacklog = 128;  // cli.md 4.1

Error taken(const std::string& path, std::string_view by) {
  return Error(std::errc::address_in_use,
               format_text("control socket path taken: {} {}; choose another path for --socket or "
                           "remove what is there",
                           path, by));
}

/// Keeps two starting VMs from both taking one path for stale: from looking at it until listening
/// there. Where the directory cannot be opened or somebody else holds its lock for long, the start
/// goes on without.
class DirectoryLock {
 public:
  explicit DirectoryLock(const std::string& path) {
    size_t slash = path.rfind('/');
    std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    fd_ = Fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    constexpr int kTries = 50;
    constexpr timespec kPause = {.tv_sec = 0, .tv_nsec = 10'000'000};
    for (int i = 0; i < kTries && fd_ && ::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0; ++i) {
      ::nanosleep(&kPause, nullptr);
    }
  }

 private:
  Fd fd_;  // closing it unlocks
};

int bind_to(const Fd& fd, const UnixAddress& address) {
  return ::bind(fd.get(), address.get(), address.size());
}

/// Removes the socket file at `path` when nobody listens on it.
Result<void> remove_stale(const std::string& path, const UnixAddress& address) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return fail(Error::from_errno("examining control socket", path));
  }
  if (S_ISLNK(status.st_mode)) return fail(taken(path, "is a symbolic link"));
  if (!S_ISSOCK(status.st_mode)) return fail(taken(path, "exists and is no socket"));
  Fd probe(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return fail(Error::from_errno("creating", "a socket"));
  if (::connect(probe.get(), address.get(), address.size()) == 0 || errno == EAGAIN) {
    return fail(taken(path, "belongs to a running VM"));
  }
  if (errno == EPROTOTYPE) return fail(taken(path, "belongs to another running program"));
  if (errno == ENOENT) return {};
  if (errno != ECONNREFUSED) return fail(Error::from_errno("examining control socket", path));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return fail(Error::from_errno("removing the stale control socket", path));
  }
  return {};
}

Result<int> option_of(const Fd& fd, int option, const std::string& path) {
  int value = 0;
  socklen_t size = sizeof(value);
  if (::getsockopt(fd.get(), SOL_SOCKET, option, &value, &size) != 0) {
    return fail(Error::from_errno("examining control socket", path));
  }
  return value;
}

}  // namespace

Result<Listener> Listener::adopt(const std::string& path) {
  Fd fd = TRY(open_path(path, O_RDWR));
  int domain = TRY(option_of(fd, SO_DOMAIN, path));
  int type = TRY(option_of(fd, SO_TYPE, path));
  int listening = TRY(option_of(fd, SO_ACCEPTCONN, path));
  if (domain != AF_UNIX || type != SOCK_SEQPACKET || listening == 0) {
    return fail(Error::invalid(format_text(
        "control socket {} must be a Unix socket of type seqpacket that listens", path)));
  }
  int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail(Error::from_errno("preparing control socket", path));
  }
  return Listener(std::move(fd), path, std::nullopt);
}

Result<Listener> Listener::open(const std::string& given) {
  if (given.starts_with(kOwnDescriptors)) return adopt(given);
  std::string path = given;
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
    path += format_text("{}crosvm-{}.sock", path.ends_with('/') ? "" : "/", ::getpid());
  }
  UnixAddress address = TRY(with_context(UnixAddress::of(path), "control socket"));
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail(Error::from_errno("creating", "a socket"));

  DirectoryLock lock(path);
  int bound = bind_to(fd, address);
  if (bound != 0 && errno == EADDRINUSE) {
    TRY(remove_stale(path, address));
    bound = bind_to(fd, address);
  }
  if (bound != 0) return fail(socket_not_made("control socket", path, errno));
  std::optional<Identity> made;
  if (::lstat(path.c_str(), &status) == 0) made = Identity{status.st_dev, status.st_ino};
  Listener listener(std::move(fd), path, made);  // from here on the file is removed on failure
  if (::listen(listener.fd_.get(), kBacklog) != 0) {
    return fail(Error::from_errno("listening on control socket", path));
  }
  return listener;
}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::move(other.fd_)),
      path_(std::move(other.path_)),
      made_(std::exchange(other.made_, std::nullopt)) {}

Listener::~Listener() {
  struct stat status{};
  if (!made_ || ::lstat(path_.c_str(), &status) != 0) return;
  if (status.st_dev == made_->device && status.st_ino == made_->inode) ::unlink(path_.c_str());
}

Result<std::optional<PacketSocket>> Listener::accept() {
  Fd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd) return PacketSocket(std::move(fd), kPacketLimits);
  if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return std::nullopt;
  return fail(Error::from_errno("accepting on control socket", path_));
}

}  // namespace crosvm::control
