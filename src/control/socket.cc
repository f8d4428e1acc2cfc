#include "control/socket.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include "base/format.h"
#include "base/unix_address.h"

namespace crosvm::control {

namespace {

bool is_directory(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace

Result<PacketSocket> connect(const std::string& path) {
  UnixAddress address = TRY(with_context(UnixAddress::of(path), "control socket"));
  if (is_directory(path)) {
    return fail(Error::invalid(
        format_text("control socket {} is a directory; name the socket of one VM in it", path)));
  }
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) return fail(Error::from_errno("creating", "a socket"));
  if (::connect(fd.get(), address.get(), address.size()) != 0) {
    return fail(Error::from_errno("connecting to control socket", path));
  }
  return PacketSocket(std::move(fd), kPacketLimits);
}

}  // namespace crosvm::control
