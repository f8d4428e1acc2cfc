#pragma once

#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "platform/serial_config.h"
#include "platform/serial_input.h"
#include "platform/serial_output.h"

namespace crosvm {

/// The host's side of one serial port.
struct SerialBackend {
  std::unique_ptr<SerialOutput> output;
  std::unique_ptr<SerialInput> input;  ///< null without input
  bool reads_terminal =
      false;  ///< our stdin, and it is a terminal: enter RawTerminal before running
};

/// What the VMM gives to every backend.
struct SerialHost {
  EventLoop& loop;       ///< reads inputs and connects datagram sockets; outlives the backends
  const Fd& stop_event;  ///< readable, and never drained, from when the VM ends: stops waits
  std::function<void()> leave;  ///< the user typed Ctrl-A x; called on the loop's thread
};

/// Opens what `config` names (devices.md 2.1, cli.md 1.5 SerialParameters). `out_timestamp` has no
/// effect on the type `unix`, nor `input`, `stdin_input` and `out_timestamp` on debugcon. Errors
/// name the serial port, the cause and the fix.
Result<SerialBackend> open_serial_backend(const SerialConfig& config, const SerialHost& host);

}  // namespace crosvm
