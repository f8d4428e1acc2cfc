#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/result.h"
#include "platform/serial_input.h"
#include "platform/serial_output.h"

namespace crosvm {

/// Passes what a SerialInput reads on into a pipe, no faster than its reader takes it.
class InputPump : private SerialReceiver {
 public:
  /// `pipe` does not wait. The loop outlives this.
  InputPump(EventLoop& loop, std::unique_ptr<SerialInput> input, Fd pipe);
  ~InputPump() override;

 private:
  size_t room() override;
  void receive(std::span<const std::byte> bytes) override;
  void flush();
  void wait_until_writable();

  EventLoop& loop_;
  Fd pipe_;
  std::vector<std::byte> held_;  // what the pipe has not taken
  EventLoop::WatchId watch_ = 0;
  std::unique_ptr<SerialInput> input_;  // last: stops before what it delivers to goes away
};

/// Passes what arrives in a pipe on to a SerialOutput.
class OutputPump {
 public:
  /// `pipe` does not wait. The loop outlives this. Errors: the errno of epoll_ctl.
  static Result<std::unique_ptr<OutputPump>> create(EventLoop& loop, Fd pipe,
                                                    std::unique_ptr<SerialOutput> output);
  /// Passes on what is still in the pipe.
  ~OutputPump();

 private:
  OutputPump(EventLoop& loop, Fd pipe, std::unique_ptr<SerialOutput> output);
  /// Takes some; false when there was nothing.
  bool take();
  void stop();

  EventLoop& loop_;
  Fd pipe_;
  std::unique_ptr<SerialOutput> output_;
  EventLoop::WatchId watch_ = 0;
  bool failed_ = false;  // said so
};

}  // namespace crosvm
