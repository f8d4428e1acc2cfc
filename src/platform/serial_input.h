#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"

namespace crosvm {

/// The device end of an input. Called on the event loop's thread.
class SerialReceiver {
 public:
  virtual ~SerialReceiver() = default;
  /// Bytes the device can queue now.
  virtual size_t room() = 0;
  /// Queues `bytes`, never more than `room` said.
  virtual void receive(std::span<const std::byte> bytes) = 0;
};

/// Reads a descriptor on the event loop and hands the bytes to a device as fast as the guest takes
/// them: no more is read than the device can queue, so a pipe or socket slows its writer down. A
/// file, which is always ready, is read when the device has room. End of file ends the input.
///
/// A terminal is read even while the guest takes nothing, or its user could not leave: up to 4096
/// keys are kept, then keys are lost.
class SerialInput {
 public:
  /// `leave` makes this a terminal: it is called on the loop's thread when the user types
  /// Ctrl-A x. `object` names the descriptor in logs. The loop outlives this object.
  SerialInput(EventLoop& loop, Fd fd, std::string object, std::function<void()> leave = nullptr);
  /// On the loop's thread, or while the loop does not run.
  ~SerialInput();
  SerialInput(const SerialInput&) = delete;
  SerialInput& operator=(const SerialInput&) = delete;

  /// Begins to deliver. From any thread; `receiver` outlives this object. A second call is ignored.
  void start(SerialReceiver& receiver);
  /// The device has room again. From any thread, cheap when nothing waits for room.
  void room_available();

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace crosvm
