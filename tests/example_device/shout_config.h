#pragma once

#include <cstdint>

#include "base/key_value.h"
#include "base/result.h"

namespace crosvm {

/// `queue-size=N,exclaim`: how large the queue is, and whether answers end with "!".
struct ShoutConfig {
  uint16_t queue_size = 64;
  bool exclaim = false;
};

/// Errors: invalid_argument naming the key.
Result<ShoutConfig> parse_shout_config(const KeyValues& text);

}  // namespace crosvm
