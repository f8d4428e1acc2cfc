#include "memory/host_memory.h"

#include <fcntl.h>

#include <array>
#include <charconv>
#include <limits>

#include "base/fd.h"
#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

constexpr const char* kMeminfo = "/proc/meminfo";

uint64_t to_mib(uint64_t bytes) { return bytes >> 20; }

/// The value of the line "KEY:   N kB", in bytes.
Result<uint64_t> meminfo_bytes(std::string_view text, std::string_view key) {
  const std::string label = std::string(key) + ":";
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (!line.starts_with(label)) continue;
    line.remove_prefix(label.size());
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    uint64_t kib = 0;
    const auto [rest, status] = std::from_chars(line.data(), line.data() + line.size(), kib);
    const bool unit_is_kib = std::string_view(rest, line.data() + line.size()) == " kB";
    if (status != std::errc() || !unit_is_kib ||
        kib > std::numeric_limits<uint64_t>::max() / 1024) {
      return fail(Error::invalid(format_text("{}: malformed line {}{}", kMeminfo, label, line)));
    }
    return kib * 1024;
  }
  return fail(Error::invalid(format_text("{}: no line {}", kMeminfo, label)));
}

Result<HostMemory> read_host_memory() {
  const Fd file = TRY(open_path(kMeminfo, O_RDONLY));
  std::array<char, 8192> text;  // the real file has some 1500 bytes
  const size_t length = TRY(read_full(file, std::as_writable_bytes(std::span(text)), kMeminfo));
  return parse_meminfo(std::string_view(text.data(), length));
}

}  // namespace

Result<HostMemory> parse_meminfo(std::string_view text) {
  HostMemory host;
  host.total = TRY(meminfo_bytes(text, "MemTotal"));
  host.available = TRY(meminfo_bytes(text, "MemAvailable"));
  host.swap_total = TRY(meminfo_bytes(text, "SwapTotal"));
  return host;
}

Result<std::optional<std::string>> judge_guest_memory(uint64_t bytes, const HostMemory& host) {
  const uint64_t most = host.total + host.swap_total;
  if (bytes > most) {
    return fail(Error(
        std::errc::not_enough_memory,
        format_text("guest memory of {} MiB: the host has {} MiB of RAM and {} MiB of "
                    "swap; ask for less than {} MiB, or add swap",
                    to_mib(bytes), to_mib(host.total), to_mib(host.swap_total), to_mib(most))));
  }
  if (bytes > host.available) {
    return format_text(
        "guest memory of {} MiB: only {} MiB are available on the host now; it will swap or kill "
        "processes if the guest uses all of it",
        to_mib(bytes), to_mib(host.available));
  }
  return std::nullopt;
}

Result<void> check_host_memory(uint64_t bytes) {
  const Result<HostMemory> host = read_host_memory();
  if (!host) {
    log::debug("host memory is not checked: {}", host.error().what());
    return {};
  }
  if (const std::optional<std::string> warning = TRY(judge_guest_memory(bytes, *host))) {
    log::warn("{}", *warning);
  }
  return {};
}

}  // namespace crosvm
