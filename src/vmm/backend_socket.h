#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "base/socket_file.h"

namespace crosvm {

/// Where a vhost-user back-end waits for its one front-end (cli.md 3.7).
class BackendSocket {
 public:
  /// As SocketFile::listen.
  static Result<BackendSocket> listen(const std::string& path);

  /// The front-end that has come; from then on nobody listens and the file is gone. To be called
  /// when `fd` is readable. Errors: the errno of accept4, resource_unavailable_try_again when it
  /// has gone again.
  Result<Fd> accept();

  const Fd& fd() const { return file_.fd(); }
  const std::string& path() const { return file_.path(); }  // absolute

 private:
  explicit BackendSocket(SocketFile file) : file_(std::move(file)) {}

  SocketFile file_;
};

/// The connected socket with which the process was started as descriptor `number`. Errors:
/// bad_file_descriptor, or invalid_argument for what is no connected stream socket.
Result<Fd> adopt_frontend(uint32_t number);

}  // namespace crosvm
