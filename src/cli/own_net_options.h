#pragma once

#include <optional>
#include <string_view>

#include "base/result.h"
#include "vmm/net_request.h"

namespace crosvm {

/// One `--net` of our own kinds, which begin with their name: `user` or `user,KEYS…`
/// (docs/user-network.md), `passt,socket=PATH…`. Nothing: it is of another kind. Errors:
/// invalid_argument naming the key.
std::optional<Result<NetRequest>> parse_own_net(std::string_view text);

}  // namespace crosvm
