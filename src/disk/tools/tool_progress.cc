#include "disk/tools/tool_progress.h"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <string_view>
#include <utility>

#include "base/format.h"

namespace crosvm {
namespace {

constexpr auto kPause = std::chrono::milliseconds(200);

}  // namespace

ToolProgress::ToolProgress(std::string object, bool shown)
    : object_(std::move(object)),
      shown_(shown && ::isatty(STDERR_FILENO) == 1),
      next_(Clock::now() + kPause) {}

ToolProgress::~ToolProgress() {
  if (has_line_) std::fputc('\n', stderr);
}

Result<void> ToolProgress::tell(uint64_t done, uint64_t total) {
  TRY(signals_.check());
  if (!shown_) return {};
  const Clock::time_point now = Clock::now();
  // The end is told where there is a line, so that it does not stay at 97 %.
  if (now < next_ && !(has_line_ && done == total)) return {};
  next_ = now + kPause;
  show(done, total);
  return {};
}

void ToolProgress::show(uint64_t done, uint64_t total) {
  const double share =
      total == 0 ? 100 : 100 * static_cast<double>(done) / static_cast<double>(total);
  const std::string line =
      format_text("\r{}: {:.0f} % of {}\033[K", object_, share, readable_bytes(total));
  std::fwrite(line.data(), 1, line.size(), stderr);
  has_line_ = true;
}

std::string readable_bytes(uint64_t bytes) {
  constexpr std::array<std::string_view, 7> kUnits = {"B",   "KiB", "MiB", "GiB",
                                                      "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return format_text("{} B", bytes);
  return format_text("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace crosvm
