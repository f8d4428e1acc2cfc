#include "vmm/backend_socket.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "base/format.h"
#include "base/user_file.h"

namespace crosvm {

Result<BackendSocket> BackendSocket::listen(const std::string& path) {
  return BackendSocket(TRY(SocketFile::listen(path, {.type = SOCK_STREAM})));
}

Result<Fd> BackendSocket::accept() {
  Fd frontend(::accept4(file_.fd().get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!frontend) return fail(Error::from_errno("accepting a front-end at", file_.path()));
  file_.close();
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
