#pragma once

#include <string>
#include <string_view>

#include "base/fd.h"

namespace crosvm {

/// The local syslog (RFC 3164), as a datagram socket. Never waits: what its receiver has no room
/// for is lost. Not thread-safe.
///
/// The C library's would open its socket anew when the receiver is not there, for which the filter
/// of a device process kills.
class SystemLog {
 public:
  static constexpr char kPath[] = "/dev/log";
  /// Tries to connect at once.
  explicit SystemLog(std::string tag, std::string path = kPath);

  /// From here on there are no more attempts to connect: files cannot be reached any more.
  void seal() { sealed_ = true; }
  /// `severity`: LOG_ERR, …. `text` is one line.
  void write(int severity, std::string_view text);

 private:
  void connect();

  const std::string tag_;
  const std::string path_;
  bool sealed_ = false;
  Fd socket_;
};

}  // namespace crosvm
