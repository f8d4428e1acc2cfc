#include "base/socket_file.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string_view>
#include <utility>

#include "base/format.h"
#include "base/unix_address.h"

namespace crosvm {
namespace {

Error taken(const std::string& path, std::string_view by) {
  return Error(
      std::errc::address_in_use,
      format_text("socket path {}: it {}; choose another path, or remove what is there", path, by));
}

/// Who removes the file may have another working directory by then.
Result<std::string> absolute_path(const std::string& path) {
  if (path.starts_with('/')) return path;
  std::string directory(PATH_MAX, '\0');
  if (::getcwd(directory.data(), directory.size()) == nullptr) {
    return fail(Error::from_errno("finding", "the working directory"));
  }
  directory.resize(directory.find('\0'));
  return format_text("{}/{}", directory, path);
}

/// Removes the socket file at `path` when nobody listens on it. Who does must not take our look for
/// his peer, so it is done with a socket of another type, which he does not see.
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

std::string_view fix_for(int error_number) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return "; make its folder first, or choose another path";
    case EACCES:
    case EPERM:
      return "; choose a folder that this user may write to";
    case EROFS:
      return "; choose a folder that can be written";
    case EADDRINUSE:
    case ELOOP:
    case ENAMETOOLONG:
      return "; choose another path";
    default:
      return "";
  }
}

}  // namespace

Error socket_not_made(std::string_view what, const std::string& path, int error_number) {
  const Error why = Error::from_errno(format_text("creating {}", what), path, error_number);
  return Error(why.code(), format_text("{}{}", why.what(), fix_for(error_number)));
}

Result<SocketFile> SocketFile::listen(const std::string& path, const Options& options) {
  const UnixAddress address = TRY(UnixAddress::of_long(path));
  Fd fd(::socket(AF_UNIX, options.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail(Error::from_errno("creating", "a socket"));
  std::string absolute = TRY(absolute_path(path));
  TRY(remove_stale(path, address));
  if (::bind(fd.get(), address.get(), address.size()) != 0) {
    return fail(socket_not_made("socket", path, errno));
  }
  SocketFile socket(std::move(fd), std::move(absolute));
  struct stat status{};
  if (::lstat(path.c_str(), &status) == 0) {
    socket.device_ = status.st_dev;
    socket.inode_ = status.st_ino;
  }
  if (::listen(socket.fd_.get(), options.backlog) != 0) {
    return fail(Error::from_errno("listening on socket", path));
  }
  return socket;
}

SocketFile::SocketFile(SocketFile&& other) noexcept
    : fd_(std::move(other.fd_)),
      path_(std::exchange(other.path_, {})),
      device_(other.device_),
      inode_(other.inode_) {}

SocketFile::~SocketFile() { close(); }

bool SocketFile::is_at(const std::string& path) const {
  struct stat now{};
  return ::lstat(path.c_str(), &now) == 0 && now.st_dev == device_ && now.st_ino == inode_;
}

void SocketFile::close() {
  if (!fd_) return;
  fd_ = {};
  if (is_at(path_)) ::unlink(path_.c_str());
}

}  // namespace crosvm
