#pragma once

#include <charconv>
#include <string_view>
#include <vector>

namespace crosvm::doctor {

// What files below /proc and /etc are made of. By hand, since the streams of the C++ library bring
// its locales with them, a tenth of the whole program.

/// The parts of `text` between the characters of `separators`, without empty ones.
std::vector<std::string_view> split(std::string_view text, std::string_view separators);

/// The lines of `text` that are not empty.
inline std::vector<std::string_view> lines_of(std::string_view text) { return split(text, "\n"); }

/// What blanks part.
inline std::vector<std::string_view> words_of(std::string_view line) { return split(line, " \t"); }

/// The number that `text` begins with, or `without`.
template <class T>
T number(std::string_view text, int base = 10, T without = 0) {
  T value = without;
  std::from_chars(text.data(), text.data() + text.size(), value, base);
  return value;
}

}  // namespace crosvm::doctor
