#pragma once

#include <time.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// Where the bytes a guest sends to a serial port go (devices.md 2.1, host types). One thread at a
/// time, which the bus sees to.
class SerialOutput {
 public:
  virtual ~SerialOutput() = default;
  /// Passes on all of `bytes`; nothing is kept back but for a backend that sends whole lines.
  /// Errors: the errno of the write; operation_canceled when the VM ended while the reader was
  /// slow.
  virtual Result<void> write(std::span<const std::byte> bytes) = 0;
};

/// Discards everything.
std::unique_ptr<SerialOutput> make_sink_output();

/// Writes to a descriptor: file, pipe, terminal or stream socket. Where the reader is slow the
/// caller waits, as no byte may be lost; the wait ends when `stop` becomes readable. `stop` is
/// duplicated; it is never drained here. `object` names the descriptor in errors.
Result<std::unique_ptr<SerialOutput>> make_fd_output(Fd fd, const Fd& stop, std::string object);

/// One info record per line through base/log.h, which shows bytes that do not print as \xNN. `name`
/// begins each record.
std::unique_ptr<SerialOutput> make_syslog_output(std::string name);

/// Puts "[ YYYY-MM-DD HH:MM:SS.nnnnnnnnn ]: " (UTC) before the first byte of each line. `clock`
/// gives CLOCK_REALTIME.
std::unique_ptr<SerialOutput> make_timestamp_output(std::unique_ptr<SerialOutput> next,
                                                    std::function<timespec()> clock);

}  // namespace crosvm
