#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "control/protocol.h"
#include "control/socket.h"

namespace crosvm::control {

/// The right to answer one request; copies are the same right. It may outlive the connection and
/// the server. Belongs to the loop's thread.
class Reply {
 public:
  /// Answers. Only the first call counts; on a Throttle none does (cli.md 4.2).
  void operator()(Response response) const;
  /// Says that the answer may come much later or never, so that the connection's next requests do
  /// not wait for it (cli.md 4.4: the balloon, s2idle).
  void make_late() const;

 private:
  friend class ServerCore;
  struct State;
  explicit Reply(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

/// Serves a control socket on an event loop.
///
/// A connection's requests are handed over one at a time: the next when the one before was
/// answered, made late, or its Reply given up, which leaves it unanswered. While answers wait to be
/// read by the client, nothing more is read from it. So a client holds at most one packet, a
/// bounded number of late answers and its descriptors in memory. A malformed request is logged and
/// not answered. The answers of a client that hangs up are thrown away, with a record.
class Server {
 public:
  using Handler = std::function<void(Request, Reply)>;

  struct Options {
    /// Above this, the connection that has been idle longest is closed for a new one, or where all
    /// wait for answers, the one unused longest: so no clients can keep out the one that says stop.
    /// 0: half the descriptors we may open.
    size_t max_connections = 0;
    /// Late answers a connection may wait for before it is no longer read.
    size_t max_late = 64;
  };

  /// `loop` must outlive the server. Errors: the errno of watching the socket.
  static Result<std::unique_ptr<Server>> create(EventLoop& loop, Listener listener, Handler handler,
                                                const Options& options);
  static Result<std::unique_ptr<Server>> create(EventLoop& loop, Listener listener,
                                                Handler handler) {
    return create(loop, std::move(listener), std::move(handler), Options());
  }
  /// Closes all connections and removes the socket file. Not from within the handler.
  ~Server();

  size_t connection_count() const;
  /// Where clients connect.
  const std::string& path() const;

 private:
  explicit Server(std::shared_ptr<class ServerCore> core) : core_(std::move(core)) {}
  std::shared_ptr<class ServerCore> core_;
};

}  // namespace crosvm::control
