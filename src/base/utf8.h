#pragma once

#include <cstddef>
#include <string_view>

namespace crosvm {

/// Bytes of the UTF-8 sequence that `text`, which is not empty, starts with: 1 to 4; 0 when it does
/// not start with one (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
size_t utf8_length(std::string_view text);

}  // namespace crosvm
