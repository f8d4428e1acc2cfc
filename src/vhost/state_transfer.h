#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// Moves the state of a device through a pipe, as the other end gives or takes it, and waits for
/// nothing. Belongs to the loop.
class StateTransfer {
 public:
  /// Called once, on the loop: with what was read, or with nothing after it was written. May
  /// destroy the transfer.
  using Done = std::function<void(Result<std::vector<std::byte>>)>;
  struct Options {
    EventLoop& loop;  ///< outlives the transfer
    size_t most = 0;  ///< bytes that are read; more is an error
    /// How long all of it may take; none: as long as it likes.
    std::optional<std::chrono::milliseconds> patience{};
  };

  /// Reads from `pipe` to its end. Errors: it cannot be watched. Those of `done`: message_size
  /// when it does not end, timed_out, or the errno of read.
  static Result<std::unique_ptr<StateTransfer>> receive(const Options& options, Fd pipe, Done done);
  /// Writes `bytes` and closes the pipe. Errors as above.
  static Result<std::unique_ptr<StateTransfer>> send(const Options& options, Fd pipe,
                                                     std::vector<std::byte> bytes, Done done);
  /// Ends it without a call of `done`.
  ~StateTransfer();
  StateTransfer(const StateTransfer&) = delete;
  StateTransfer& operator=(const StateTransfer&) = delete;

 private:
  StateTransfer(const Options& options, Fd pipe, Done done)
      : options_(options), pipe_(std::move(pipe)), done_(std::move(done)) {}
  static Result<std::unique_ptr<StateTransfer>> start(std::unique_ptr<StateTransfer> transfer,
                                                      uint32_t events);
  void ready();
  Result<bool> read_some();
  Result<bool> write_some();
  void stop();
  void finish(Result<void> result);

  Options options_;
  Fd pipe_;
  Done done_;
  bool sending_ = false;
  std::vector<std::byte> bytes_;
  size_t sent_ = 0;
  EventLoop::WatchId watch_ = 0;
  EventLoop::TimerId timer_ = 0;
};

}  // namespace crosvm
