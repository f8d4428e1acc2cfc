#pragma once

#include <fmt/core.h>

#include <string>

namespace crosvm {

/// fmt::vformat, compiled once in format.cc: Debian has no static libfmt, and the header-only form
/// would be compiled again in every file.
std::string format_text_from(fmt::string_view text, fmt::format_args args);

/// Text from a format string that is checked at compile time: `format_text("{:#x}", address)`. Not
/// named format: argument-dependent lookup would find std::format beside it in newer libraries.
template <class... Args>
std::string format_text(fmt::format_string<Args...> text, Args&&... args) {
  return format_text_from(text, fmt::make_format_args(args...));
}

}  // namespace crosvm
