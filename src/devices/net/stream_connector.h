#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/packet_socket.h"
#include "base/result.h"
#include "devices/net/stream_dialer.h"

namespace crosvm {

/// Who may name a path, for a device process that may not: connects to one socket whenever that
/// process asks, as StreamDialer does.
class StreamConnector {
 public:
  /// `asker` is one end of a pair of SOCK_SEQPACKET; a StreamAsker has the other. `loop` outlives
  /// this. Errors: those of watching it.
  static Result<std::unique_ptr<StreamConnector>> create(EventLoop& loop, std::string path,
                                                         Fd asker);
  ~StreamConnector();
  StreamConnector(const StreamConnector&) = delete;
  StreamConnector& operator=(const StreamConnector&) = delete;

 private:
  StreamConnector(EventLoop& loop, std::string path, Fd asker);
  void hear();
  void answer(Fd socket);

  EventLoop& loop_;
  const std::string path_;
  PacketSocket asker_;
  std::unique_ptr<StreamDialer> dialer_;
  EventLoop::WatchId watch_ = 0;
};

/// The device's side.
class StreamAsker {
 public:
  using Connected = std::function<void(Fd socket)>;

  static Result<std::unique_ptr<StreamAsker>> create(EventLoop& loop, Fd connector,
                                                     Connected connected);
  ~StreamAsker();
  StreamAsker(const StreamAsker&) = delete;
  StreamAsker& operator=(const StreamAsker&) = delete;

  /// `connected` will be called once.
  void ask();

 private:
  StreamAsker(EventLoop& loop, Fd connector, Connected connected);
  void hear();

  EventLoop& loop_;
  PacketSocket connector_;
  Connected connected_;
  EventLoop::WatchId watch_ = 0;
};

}  // namespace crosvm
