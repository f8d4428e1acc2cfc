#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// What to say when no socket file can be made at `path`, with what helps against `error_number`;
/// `what` is what it would be: "control socket".
Error socket_not_made(std::string_view what, const std::string& path, int error_number);

/// A Unix socket that we listen on, and its file, which goes with it.
class SocketFile {
 public:
  struct Options {
    int type = 0;  ///< SOCK_STREAM or SOCK_SEQPACKET
    int backlog = 1;
  };

  /// Listens at `path`, without blocking. A socket file that nobody listens on is replaced. Errors:
  /// address_in_use when somebody does, or the path is another kind of file; invalid_argument for
  /// one that is too long; else the errno of bind, with what helps.
  static Result<SocketFile> listen(const std::string& path, const Options& options);

  SocketFile(SocketFile&& other) noexcept;
  SocketFile& operator=(SocketFile&&) = delete;
  /// Removes the file, if it is still ours.
  ~SocketFile();

  /// The listening socket.
  const Fd& fd() const { return fd_; }
  /// Absolute.
  const std::string& path() const { return path_; }
  /// Whether `path` names the file.
  bool is_at(const std::string& path) const;
  /// Removes the file, if it is still ours, and stops listening.
  void close();
  /// Stops listening; the file stays.
  void leave() { fd_ = {}; }

 private:
  SocketFile(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  Fd fd_;
  std::string path_;
  dev_t device_ = 0;  // of the file
  ino_t inode_ = 0;
};

}  // namespace crosvm
