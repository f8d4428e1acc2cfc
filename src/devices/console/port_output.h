#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/log_limit.h"

namespace crosvm {

/// The host's end of what a port sends: a file, pipe, terminal or stream socket. Never waits: what
/// the descriptor does not take now is kept, and written when it can be.
class PortOutput {
 public:
  struct Options {
    std::string object;      ///< names the descriptor in logs
    bool timestamp = false;  ///< "[ YYYY-MM-DD HH:MM:SS.nnnnnnnnn ]: " in UTC before each line
  };
  /// `drained` is called, on the loop, when what had been kept is gone. The loop outlives this.
  PortOutput(EventLoop& loop, Fd fd, Options options, std::function<void()> drained);
  ~PortOutput();
  PortOutput(const PortOutput&) = delete;
  PortOutput& operator=(const PortOutput&) = delete;

  /// Writes or keeps `bytes`; how much is kept is for the caller to bound, by `kept`.
  void write(std::span<const std::byte> bytes);
  /// Bytes that wait for the descriptor.
  size_t kept() const { return kept_.size() - written_; }
  /// The other end is gone for good: a socket without a peer. What is written is discarded, as it
  /// is while a FIFO has no reader.
  bool gone() const { return gone_; }
  /// Whether the peer of a socket has hung up; then it is gone from now on.
  bool look_for_hangup();

 private:
  void keep(std::span<const std::byte> bytes);
  void flush();
  /// As write(2), at most what a descriptor without O_NONBLOCK takes without waiting.
  ssize_t put(std::span<const std::byte> bytes);
  void wait_until_writable();
  void lose(int error_number);

  EventLoop& loop_;
  Fd fd_;
  Options options_;
  std::function<void()> drained_;
  bool is_socket_ = false;
  bool may_wait_ = false;  // writing could wait, as neither the descriptor nor the call forbid it
  bool at_line_start_ = true;
  bool gone_ = false;
  bool losing_ = false;  // said so; until a byte gets through
  LogLimit log_limit_{"failures of console outputs", 1};
  std::vector<std::byte> kept_;
  size_t written_ = 0;  // of kept_, from its start
  EventLoop::WatchId watch_ = 0;
};

}  // namespace crosvm
