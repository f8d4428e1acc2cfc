#pragma once

#include <string>

#include "base/packet_socket.h"
#include "base/result.h"

namespace crosvm {

/// A process that listens where our one front-end is to come, for one that has confined itself and
/// may neither make a socket file nor take who comes there. It ends when that one has come, or when
/// we do; the file goes then.
class BackendSocketProcess {
 public:
  /// It does nothing until `listen`. Before the calling process has threads. Errors: those of fork
  /// and of making a socket pair.
  static Result<BackendSocketProcess> start(const std::string& path);

  /// Waits until it listens. Errors: those of BackendSocket::listen.
  Result<void> listen();
  /// Can be read from when the front-end has come.
  const Fd& fd() const { return channel_.fd(); }
  /// The front-end, once. Errors: broken_pipe when the process has died.
  Result<Fd> take();

 private:
  explicit BackendSocketProcess(Fd channel);
  PacketSocket channel_;
};

}  // namespace crosvm
