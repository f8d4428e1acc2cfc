#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "base/fd.h"
#include "base/packet_socket.h"
#include "base/result.h"
#include "control/protocol.h"

/// Sequenced-packet Unix sockets that carry one message per packet (cli.md 4.1, 4.2).
namespace crosvm::control {

/// Connects to a VM's control socket, blocking. Errors: invalid_argument for a directory or a path
/// that does not fit a socket address, else the errno of connect.
Result<PacketSocket> connect(const std::string& path);

/// The listening end at the path of `--socket`. Removes the file it made when it goes away.
class Listener {
 public:
  /// Listens at `path`: below it, as crosvm-PID.sock, where it is a directory; on the socket that
  /// it stands for where it is /proc/self/fd/N. A socket file that nobody listens on is replaced.
  /// Errors: address_in_use when somebody does or the path is another kind of file,
  /// invalid_argument for a path that does not fit or a descriptor that is no listening seqpacket
  /// socket, else the errno of bind.
  static Result<Listener> open(const std::string& path);

  Listener(Listener&&) noexcept;
  Listener& operator=(Listener&&) = delete;
  ~Listener();

  /// A waiting connection, non-blocking; nullopt when there is none. Errors: the errno of accept4.
  Result<std::optional<PacketSocket>> accept();

  const Fd& fd() const { return fd_; }
  /// Whether there is a file that goes away with this.
  bool made_file() const { return made_.has_value(); }
  /// Where clients connect; the path given for an adopted socket.
  const std::string& path() const { return path_; }

 private:
  struct Identity {  // of the socket file we made
    dev_t device;
    ino_t inode;
  };
  Listener(Fd fd, std::string path, std::optional<Identity> made)
      : fd_(std::move(fd)), path_(std::move(path)), made_(made) {}
  static Result<Listener> adopt(const std::string& path);

  Fd fd_;
  std::string path_;
  std::optional<Identity> made_;
};

}  // namespace crosvm::control
