#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/packet_socket.h"
#include "base/result.h"
#include "base/unix_address.h"

namespace crosvm {

/// A connection to the stream socket at `path`. Errors: the errno of connect, with what helps.
Result<Fd> connect_stream(const std::string& path);

/// Who may name a path, for a device process that may not: connects to one socket whenever that
/// process asks, again and again until somebody listens there.
class StreamConnector {
 public:
  static constexpr std::chrono::milliseconds kPause{500};
  /// Where connections live no longer than kShortLife, each pause is twice the last one, up to
  /// this.
  static constexpr std::chrono::milliseconds kMostPause{32'000};
  static constexpr std::chrono::seconds kShortLife{2};

  /// `asker` is one end of a pair of SOCK_SEQPACKET; a StreamAsker has the other. `loop` outlives
  /// this. Errors: those of watching it.
  static Result<std::unique_ptr<StreamConnector>> create(EventLoop& loop, std::string path,
                                                         Fd asker);
  ~StreamConnector();
  StreamConnector(const StreamConnector&) = delete;
  StreamConnector& operator=(const StreamConnector&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  StreamConnector(EventLoop& loop, std::string path, UnixAddress address, Fd asker);
  void hear();
  void connect();

  EventLoop& loop_;
  const std::string path_;
  const UnixAddress address_;  // made at once: later this process may open nothing
  PacketSocket asker_;
  EventLoop::WatchId watch_ = 0;
  EventLoop::TimerId timer_ = 0;
  Clock::time_point connected_at_{};
  std::chrono::milliseconds pause_ = kPause;
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
