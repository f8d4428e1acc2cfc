#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// Where a vhost-user back-end waits for its one front-end (cli.md 3.7).
class BackendSocket {
 public:
  /// Listens at `path`. A socket file that nobody listens on is replaced. Errors: address_in_use
  /// when somebody does, or the path is another kind of file; invalid_argument for one that is too
  /// long; else the errno of bind.
  static Result<BackendSocket> listen(const std::string& path);

  BackendSocket(BackendSocket&& other) noexcept;
  BackendSocket& operator=(BackendSocket&&) = delete;
  /// Removes the file, if it is still ours.
  ~BackendSocket();

  /// The front-end that has come; from then on nobody listens and the file is gone. To be called
  /// when `fd` is readable. Errors: the errno of accept4, resource_unavailable_try_again when it
  /// has gone again.
  Result<Fd> accept();

  const Fd& fd() const { return fd_; }
  const std::string& path() const { return path_; }

 private:
  BackendSocket(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  void remove_file();

  Fd fd_;
  std::string path_;
  dev_t device_ = 0;  // of the file
  ino_t inode_ = 0;
};

/// The connected socket with which the process was started as descriptor `number`. Errors:
/// bad_file_descriptor, or invalid_argument for what is no connected stream socket.
Result<Fd> adopt_frontend(uint32_t number);

}  // namespace crosvm
