#include "base/socket_pair.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "base/format.h"

namespace crosvm {

Result<FdPair> make_socket_pair(int type, std::string_view purpose) {
  int ends[2];
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail(Error::from_errno("creating", format_text("a socket pair for {}", purpose)));
  }
  return FdPair{.ours = Fd(ends[0]), .theirs = Fd(ends[1])};
}

Result<void> set_non_blocking(const Fd& end) {
  const int flags = ::fcntl(end.get(), F_GETFL);
  if (flags < 0 || ::fcntl(end.get(), F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail(Error::from_errno("setting the flags of", "a socket"));
  }
  return {};
}

}  // namespace crosvm
