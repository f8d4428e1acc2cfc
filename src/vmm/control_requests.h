#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.h"
#include "base/result.h"
#include "control/server.h"
#include "vmm/machine.h"

namespace crosvm {

/// Carries out what clients of the control socket ask of a machine (cli.md 4.4).
class ControlRequests {
 public:
  /// Binds the socket, if `path` is given; clients may connect from now on and wait. Errors: those
  /// of control::Listener::open, naming `--socket`.
  Result<void> listen(const std::optional<std::string>& path);
  /// The path of the socket file that `listen` made, if it made one.
  std::optional<std::string> made_file() const;
  /// Answers them on `loop` until `close`. `stop` ends the VM.
  Result<void> serve(EventLoop& loop, Machine& machine, std::function<void()> stop);
  /// Drops all clients and removes the socket; before the machine goes away.
  void close();

 private:
  std::optional<control::Listener> listener_;
  std::unique_ptr<control::Server> server_;
  std::shared_ptr<bool> open_;  // until `close`: answers that come late find somebody
};

}  // namespace crosvm
