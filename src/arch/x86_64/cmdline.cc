#include "arch/x86_64/cmdline.h"

#include <algorithm>

#include "arch/x86_64/layout.h"
#include "base/format.h"

namespace crosvm::x86_64 {
namespace {

constexpr uint32_t kOldKernelLimit = 255;  // of boot protocols that do not say
constexpr uint32_t kLimit = kCommandLineSize - 1;

bool is_printable(char c) { return c >= 0x20 && c <= 0x7E; }

Result<void> check_characters(std::string_view text) {
  const auto bad = std::find_if_not(text.begin(), text.end(), is_printable);
  if (bad == text.end()) return {};
  return fail(Error::invalid(format_text(
      "kernel parameter \"{}…\": byte {:#04x} at position {} is not printable ASCII; remove it",
      text.substr(0, static_cast<size_t>(bad - text.begin())),
      static_cast<unsigned>(static_cast<unsigned char>(*bad)), bad - text.begin())));
}

}  // namespace

Result<std::string> build_command_line(const CommandLineParts& parts) {
  std::string line = "panic=-1";
  for (const std::string& console : parts.consoles) line += " console=" + console;
  if (parts.early_console) {
    line += format_text(" earlycon=uart8250,{},{:#x}", parts.early_console->mmio ? "mmio" : "io",
                        parts.early_console->address);
  }
  for (const std::string& param : parts.params) {
    TRY(check_characters(param));
    if (!param.empty()) line += " " + param;
  }
  TRY(check_command_line(line, kLimit));
  return line;
}

Result<void> check_command_line(std::string_view line, uint32_t kernel_limit) {
  TRY(check_characters(line));
  const uint32_t limit = std::min(kernel_limit == 0 ? kOldKernelLimit : kernel_limit, kLimit);
  if (line.size() <= limit) return {};
  return fail(Error::invalid(
      format_text("the kernel command line has {} bytes, this kernel takes {}; shorten the "
                  "parameters given with -p",
                  line.size(), limit)));
}

Result<void> write_command_line(const GuestMemory& memory, std::string_view line,
                                uint32_t kernel_limit) {
  TRY(check_command_line(line, kernel_limit));
  const std::string text(line);
  return memory.write_bytes(kCommandLine, std::as_bytes(std::span(text.c_str(), text.size() + 1)));
}

}  // namespace crosvm::x86_64
