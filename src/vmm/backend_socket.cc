#include "vmm/backend_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "base/format.h"
#include "base/unix_address.h"
#include "base/user_file.h"

namespace crosvm {
namespace {

Error taken(const std::string& path, std::string_view by) {
  return Error(
      std::errc::address_in_use,
      format_text("socket path {}: it {}; choose another path, or remove what is there", path, by));
}

/// Removes the socket file at `path` when nobody listens on it. Who does must not take our look for
/// his front-end, so it is done with a socket of another type, which he does not see.
Result<void> remove_stale(const std::string& path, const UnixAddress& address) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return fail(Error::from_errno("examining socket", path));
  }
  if (!S_ISSOCK(status.st_mode)) return fail(taken(path, "is no socket"));
  Fd probe(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return fail(Error::from_errno("creating", "a socket"));
  if (::connect(probe.get(), address.get(), address.size()) == 0 || errno == EPROTOTYPE) {
    return fail(taken(path, "belongs to a running program"));
  }
  if (errno == ENOENT) return {};
  if (errno != ECONNREFUSED) return fail(Error::from_errno("examining socket", path));
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return fail(Error::from_errno("removing the stale socket", path));
  }
  return {};
}

}  // namespace

Result<BackendSocket> BackendSocket::listen(const std::string& path) {
  const UnixAddress address = TRY(UnixAddress::of_long(path));
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail(Error::from_errno("creating", "a socket"));
  TRY(remove_stale(path, address));
  if (::bind(fd.get(), address.get(), address.size()) != 0) {
    return fail(Error::from_errno("creating socket", path));
  }
  BackendSocket socket(std::move(fd), path);
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0) {
    socket.device_ = status.st_dev;
    socket.inode_ = status.st_ino;
  }
  if (::listen(socket.fd_.get(), 1) != 0) {
    return fail(Error::from_errno("listening on socket", path));
  }
  return socket;
}

BackendSocket::BackendSocket(BackendSocket&& other) noexcept
    : fd_(std::move(other.fd_)),
      path_(std::exchange(other.path_, {})),
      device_(other.device_),
      inode_(other.inode_) {}

BackendSocket::~BackendSocket() { remove_file(); }

void BackendSocket::remove_file() {
  struct stat now{};
  if (!fd_ || ::lstat(path_.c_str(), &now) != 0) return;
  if (now.st_dev == device_ && now.st_ino == inode_) ::unlink(path_.c_str());
}

Result<Fd> BackendSocket::accept() {
  Fd frontend(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!frontend) return fail(Error::from_errno("accepting a front-end at", path_));
  remove_file();
  fd_ = {};
  return frontend;
}

Result<Fd> adopt_frontend(uint32_t number) {
  const std::string name = format_text("{}{}", kOwnDescriptors, number);
  Fd socket = TRY(with_context(open_user_file(name, O_RDWR), "--fd"));
  int type = 0;
  socklen_t size = sizeof(type);
  sockaddr_storage peer{};
  socklen_t peer_size = sizeof(peer);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM ||
      ::getpeername(socket.get(), reinterpret_cast<sockaddr*>(&peer), &peer_size) != 0) {
    return fail(Error::invalid(
        format_text("--fd {}: this is no connected stream socket; give one whose other end the "
                    "front-end has",
                    number)));
  }
  return socket;
}

}  // namespace crosvm
