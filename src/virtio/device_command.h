#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// What the VMM asks of one running device beyond what vhost has verbs for, mostly for a client of
/// the control socket. It reaches the device wherever that runs, unless another program serves it.
struct DeviceCommand {
  std::string name;         ///< what is to be done: "resize"
  std::string arguments{};  ///< UTF-8, in the form that the device's class documents
  std::vector<Fd> fds{};    ///< what it is to be done with
};

/// The device's answer, UTF-8 in the form that its class documents, or why it cannot. Called once.
using CommandDone = std::function<void(Result<std::string>)>;

/// `done`, which is called in any case: with an error (not_connected) when the last copy of this
/// goes and none was called.
CommandDone surely(CommandDone done);

/// The answer of what does not know the command. Errors: not_supported.
Result<std::string> unknown_command(const DeviceCommand& command);

}  // namespace crosvm
