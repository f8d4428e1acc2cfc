#include "base/utf8.h"

#include <array>
#include <cstdint>

namespace crosvm {

size_t utf8_length(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  struct Form {
    unsigned char mask, lead;
    size_t length;
    uint32_t least;
  };
  constexpr std::array<Form, 4> kForms = {
      {{0x80, 0, 1, 0}, {0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}}};
  for (const Form& form : kForms) {
    if ((byte(0) & form.mask) != form.lead) continue;
    if (text.size() < form.length) return 0;
    uint32_t code = byte(0) & ~uint32_t{form.mask};
    for (size_t i = 1; i < form.length; ++i) {
      if ((byte(i) & 0xc0) != 0x80) return 0;
      code = code << 6 | (byte(i) & 0x3f);
    }
    bool surrogate = code >= 0xd800 && code < 0xe000;
    return code >= form.least && code <= 0x10ffff && !surrogate ? form.length : 0;
  }
  return 0;
}

}  // namespace crosvm
