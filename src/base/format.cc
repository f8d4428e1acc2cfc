#define FMT_HEADER_ONLY
#define FMT_STATIC_THOUSANDS_SEPARATOR ','  // else it brings all of the C++ locales
#include "base/format.h"

#include <fmt/format.h>

namespace crosvm {

std::string format_text_from(fmt::string_view text, fmt::format_args args) {
  return fmt::vformat(text, args);
}

}  // namespace crosvm
