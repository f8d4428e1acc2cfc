#pragma once

#include <functional>
#include <memory>
#include <string>

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

/// The host's side of one virtio-console port, for a device that has descriptors and nothing else.
/// What no descriptor can do by itself stays with us, and needs a pipe to the device.
struct SerialEnds {
  Fd output;                                  ///< where the device writes; none: see below
  Fd input;                                   ///< what the device reads; none: see below
  std::unique_ptr<SerialOutput> line_output;  ///< `syslog` and `unix`: takes what the device writes
  std::unique_ptr<SerialInput> keyboard;      ///< a terminal, which has a key to leave by
  std::string output_name;                    ///< names it in logs; empty: the output is a sink
  std::string input_name;                     ///< empty: there is no input
};

/// Opens what `config` names (devices.md 2.1, cli.md 1.5 SerialParameters). `out_timestamp` has no
/// effect on the type `unix`, nor `input`, `stdin_input` and `out_timestamp` on debugcon. Errors
/// name the serial port, the cause and the fix.
Result<SerialBackend> open_serial_backend(const SerialConfig& config, const SerialHost& host);

/// The same for a virtio-console port. Timestamps are left to the device.
Result<SerialEnds> open_serial_ends(const SerialConfig& config, const SerialHost& host);

}  // namespace crosvm
