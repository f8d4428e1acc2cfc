#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace crosvm {

/// The kinds of devices of `--restart-devices block,rng`. Errors: invalid_argument for a kind that
/// does not exist, and for one whose requests must not be executed twice.
Result<std::vector<std::string>> parse_restart_devices(std::string_view value);

}  // namespace crosvm
