#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// Where a Unix socket is: a path in the form that bind and connect take.
class UnixAddress {
 public:
  /// A path of 1 to 107 bytes. Errors: invalid_argument naming the path and how long it may be.
  static Result<UnixAddress> of(const std::string& path);
  /// A path of any length whose last part has at most 80 bytes: where it is too long it is reached
  /// through its directory, which stays open as long as this lives. Errors: as above, and the errno
  /// of opening the directory.
  static Result<UnixAddress> of_long(const std::string& path);

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address_); }
  socklen_t size() const { return sizeof(address_); }

 private:
  sockaddr_un address_{};
  Fd directory_;
};

}  // namespace crosvm
