#pragma once

#include <functional>
#include <memory>

#include "devices/net/net_port.h"
#include "devices/net/net_receiver.h"
#include "devices/net/net_sender.h"

namespace crosvm {

/// A queue pair of a network card and the port that it is connected with, on one event loop.
class NetPair {
 public:
  /// `loop` and `events` outlive this. `link_changed` is called on the loop.
  NetPair(EventLoop& loop, DeviceEvents& events, std::unique_ptr<NetPort> port,
          std::function<void(bool up)> link_changed);

  NetPort& port() { return *port_; }
  NetReceiver& receiver() { return receiver_; }
  /// As those of VirtioDevice; `transmit`: the transmitq.
  Result<void> start(bool transmit, Virtqueue queue, uint64_t features);
  RingPosition stop(bool transmit);

 private:
  std::unique_ptr<NetPort> port_;
  NetReceiver receiver_;
  NetSender sender_;
};

/// A thread with a NetPair, for each but the first.
class NetThread {
 public:
  /// `broken` and `link_changed` are called on the thread. Errors: those of making the loop and the
  /// thread.
  struct Events {
    std::function<void(std::string why)> broken;
    std::function<void(bool up)> link_changed;
  };
  using MakePort = std::function<Result<std::unique_ptr<NetPort>>(EventLoop& loop)>;
  static Result<std::unique_ptr<NetThread>> create(const MakePort& make_port, Events events);
  /// Its queues have stopped.
  ~NetThread();

  /// Runs `work(pair)` on the thread.
  void post(std::function<void(NetPair&)> work);

 private:
  struct State;
  explicit NetThread(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
