#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "platform/serial_output.h"

namespace crosvm {

/// How long a datagram output waits between attempts to connect.
inline constexpr std::chrono::milliseconds kUnixRetryInterval{10};

/// Sends each line as one datagram without its LF or CR LF; 1024 bytes without a newline are sent
/// as they are (devices.md 2.1, `unix`). While nothing listens at `path`, connecting is tried again
/// every 10 ms on `loop`, and up to 64 KiB of lines are kept. A receiver that stays slow for 100 ms
/// or goes away costs lines, never the guest's time. Must be destroyed on the loop's thread or
/// while the loop does not run. Errors: what connecting says but for a missing or refusing target;
/// invalid_argument for a path that no socket can have.
Result<std::unique_ptr<SerialOutput>> make_unix_datagram_output(EventLoop& loop, std::string path);

/// A non-blocking stream socket connected to `path`. Errors: the errno of connect, also when the
/// listener takes longer than 5 s; invalid_argument for a path that no socket can have.
Result<Fd> connect_unix_stream(const std::string& path);

}  // namespace crosvm
