#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <string>

#include "base/result.h"

namespace crosvm::control {

/// The Unix socket address of `path`. Errors: invalid_argument when it does not fit.
Result<sockaddr_un> socket_address(const std::string& path);

}  // namespace crosvm::control
