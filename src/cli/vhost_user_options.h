#pragma once

#include <string_view>

#include "base/result.h"
#include "vmm/vhost_user_request.h"

namespace crosvm {

/// One `--vhost-user` (cli.md 1.5, VhostUserFrontend). Errors: invalid_argument naming the key.
Result<VhostUserRequest> parse_vhost_user(std::string_view text);

/// The value of an old flag for one type (cli.md 2.1): the socket's path. `type` is one that
/// `parse_vhost_user` knows.
Result<VhostUserRequest> old_vhost_user(std::string_view type, std::string_view socket);

}  // namespace crosvm
