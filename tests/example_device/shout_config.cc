#include "shout_config.h"

#include <bit>

#include "base/format.h"

namespace crosvm {

Result<ShoutConfig> parse_shout_config(const KeyValues& text) {
  ShoutConfig config;
  TRY(text.read({kv_key("queue-size", config.queue_size), kv_key("exclaim", config.exclaim)}));
  if (std::has_single_bit(config.queue_size) && config.queue_size <= 32768) return config;
  return fail(Error::invalid(
      format_text("queue-size={} is not a power of two up to 32768; use 64", config.queue_size)));
}

}  // namespace crosvm
