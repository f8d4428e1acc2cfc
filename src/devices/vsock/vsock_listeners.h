#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/log_limit.h"

namespace crosvm {

/// The sockets on which a socket device hears programs of the host. On the loop's thread.
class VsockListeners {
 public:
  /// A program has connected to the socket of that number. The new socket does not block.
  using Accepted = std::function<void(size_t listener, Fd socket)>;

  /// Listens to none yet. `loop` outlives this.
  VsockListeners(EventLoop& loop, std::vector<Fd> sockets, Accepted accepted);
  ~VsockListeners();
  VsockListeners(const VsockListeners&) = delete;
  VsockListeners& operator=(const VsockListeners&) = delete;

  /// Whether programs are heard; who is not waits in the socket's own queue.
  void listen(bool on);

 private:
  void accept(size_t listener);
  /// Where there is nothing to accept with, such as descriptors, it is tried again later.
  void pause(int error_number);
  void update();

  EventLoop& loop_;
  std::vector<Fd> sockets_;
  Accepted accepted_;
  std::vector<EventLoop::WatchId> watches_;  // none while nobody is heard
  bool on_ = false;
  EventLoop::TimerId pause_ = 0;
  LogLimit log_limit_{"failures to accept connections", 1};
};

}  // namespace crosvm
