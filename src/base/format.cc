#define FMT_HEADER_ONLY
#include "base/format.h"

#include <fmt/format.h>

namespace crosvm {

std::string format_text_from(fmt::string_view text, fmt::format_args args) {
  return fmt::vformat(text, args);
}

}  // namespace crosvm
