#include <cstdint>

#include "guest/agent/frame.h"

namespace crosvm::agent {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string encode_base64(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    size_t here = std::min<size_t>(3, bytes.size() - at);
    uint32_t group = 0;
    for (size_t i = 0; i < 3; ++i)
      group = group << 8 | (i < here ? static_cast<uint8_t>(bytes[at + i]) : 0);
    for (size_t i = 0; i < 4; ++i) text += i <= here ? kDigits[group >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

Result<std::string> decode_base64(std::string_view text) {
  auto bad = [] { return fail(Error::invalid("expected base64 with padding")); };
  if (text.size() % 4 != 0) return bad();
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (size_t at = 0; at < text.size(); at += 4) {
    size_t digits = 4;
    if (at + 4 == text.size()) {
      while (digits > 2 && text[at + digits - 1] == '=') --digits;
    }
    uint32_t group = 0;
    for (size_t i = 0; i < digits; ++i) {
      size_t value = kDigits.find(text[at + i]);
      if (value == std::string_view::npos) return bad();
      group |= static_cast<uint32_t>(value) << (18 - 6 * i);
    }
    // Bits that no byte uses are zero, so that each text has one meaning.
    if ((group & (0xffffffU >> (digits - 1) * 8 & 0xffffff)) != 0) return bad();
    for (size_t i = 0; i + 1 < digits; ++i) bytes += static_cast<char>(group >> (16 - 8 * i) & 255);
  }
  return bytes;
}

}  // namespace crosvm::agent
