#pragma once

#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// Two ends of something, for us and for somebody else.
struct FdPair {
  Fd ours;
  Fd theirs;
};

/// Connected Unix sockets of `type`: SOCK_STREAM or SOCK_SEQPACKET. Errors: the errno of
/// socketpair; `purpose` says in them what the pair is for: "a device process".
Result<FdPair> make_socket_pair(int type, std::string_view purpose);

/// Calls on this end never wait; the other end stays as it is. Errors: the errno of fcntl.
Result<void> set_non_blocking(const Fd& end);

/// Whether an error of a socket says that the other end has gone, perhaps in the middle of
/// something.
inline bool peer_has_gone(std::errc code) {
  return code == std::errc::broken_pipe || code == std::errc::connection_reset ||
         code == std::errc::not_connected || code == std::errc::connection_aborted;
}

}  // namespace crosvm
