#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/packet_socket.h"
#include "base/result.h"

namespace crosvm {

/// What a device asks of its VsockHost: a connection to the socket of one of the configuration's
/// `connect` rules, by the rule's place. There is no way to ask for another socket.
struct VsockDial {
  uint64_t number = 0;  ///< of the caller's choice, repeated in the answer
  uint32_t rule = 0;
  uint32_t unused = 0;
};
/// The answer; the connected socket comes with it.
struct VsockDialed {
  uint64_t number = 0;
  int32_t error = 0;  ///< an errno; 0: it is connected
  uint32_t unused = 0;
};
inline constexpr PacketLimits kVsockDialPackets{.bytes = sizeof(VsockDialed), .fds = 1};
/// Questions that are open at a time; the host need not have room for more answers.
inline constexpr size_t kMostVsockDials = 32;

/// The device's end: asks for connected sockets, which its own process cannot make.
class VsockDialer {
 public:
  /// On the loop. Errors: the errno of connect; timed_out for a socket that takes no more
  /// connections; too_many_files_open; not_connected when the host has gone.
  using Answer = std::function<void(uint64_t number, Result<Fd> socket)>;

  /// `channel` leads to the VsockHost. Errors: those of EventLoop::watch.
  static Result<std::unique_ptr<VsockDialer>> create(EventLoop& loop, Fd channel, Answer answer);
  ~VsockDialer();
  VsockDialer(const VsockDialer&) = delete;
  VsockDialer& operator=(const VsockDialer&) = delete;

  /// Asks. The answer comes later, never from within this call.
  void dial(uint64_t number, uint32_t rule);
  /// The answer is of no interest any more. It may come all the same.
  void forget(uint64_t number);

 private:
  struct Attempt {
    uint64_t number = 0;
    uint32_t rule = 0;
    EventLoop::Clock::time_point until;
  };
  VsockDialer(EventLoop& loop, Fd channel, Answer answer);
  void ask();
  void hear();
  bool hear_one();
  void later(Attempt attempt);
  void host_has_gone();

  EventLoop& loop_;
  PacketSocket channel_;
  Answer answer_;
  EventLoop::WatchId watch_ = 0;  // 0: the host has gone
  EventLoop::TimerId timer_ = 0;
  std::deque<Attempt> waiting_;  // not asked
  std::deque<Attempt> again_;    // to be asked again when the timer fires
  std::deque<Attempt> asked_;    // in the order of the answers
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace crosvm
