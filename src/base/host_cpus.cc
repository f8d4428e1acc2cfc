#include "base/host_cpus.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "base/fd.h"
#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

constexpr size_t kLongestFile = 64 * 1024;  // a list of every second of 8192 CPUs has 20 kB
constexpr size_t kPiece = 1024;

Result<std::string> read_text(const std::string& path) {
  Fd file = TRY(open_path(path, O_RDONLY));
  std::string text;
  // Piece by piece: it is mostly a few bytes, and each page of room costs a start of a VM a fault.
  for (size_t got = kPiece; got == kPiece && text.size() < kLongestFile;) {
    const size_t before = text.size();
    text.resize(before + kPiece);
    got = TRY(read_full(file, std::as_writable_bytes(std::span(text).subspan(before)), path));
    text.resize(before + got);
  }
  return text;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n\v\f";
  size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::optional<uint32_t> parse_number(std::string_view text) {
  text = trim(text);
  uint32_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

}  // namespace

void HostCpus::add_list(std::string_view list) {
  list = trim(list);
  while (!list.empty()) {
    size_t comma = std::min(list.find(','), list.size());
    std::string_view part = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    size_t dash = part.find('-');
    auto first = parse_number(part.substr(0, dash));
    auto last = dash == std::string_view::npos ? first : parse_number(part.substr(dash + 1));
    if (first && last && *first <= *last) online_.emplace_back(*first, *last);
  }
}

void HostCpus::add_single_files(const std::string& sysfs_cpu) {
  for (uint32_t id = 0; id < configured_; ++id) {
    std::string path = format_text("{}/cpu{}/online", sysfs_cpu, id);
    auto text = read_text(path);
    auto state = text ? parse_number(*text) : std::nullopt;
    if (!state) {
      log::warn("host CPU {}: {}; assuming that it is online", id,
                text ? path + " holds no number" : text.error().what());
    }
    if (state.value_or(1) == 1) online_.emplace_back(id, id);
  }
}

HostCpus HostCpus::read(const std::string& sysfs_cpu, uint32_t configured) {
  HostCpus cpus(configured);
  auto list = read_text(sysfs_cpu + "/online");
  if (list) {
    cpus.add_list(*list);
  } else {
    log::warn("{}; asking for each CPU instead", list.error().what());
    cpus.add_single_files(sysfs_cpu);
  }
  return cpus;
}

bool HostCpus::is_online(uint32_t id) const {
  return std::any_of(online_.begin(), online_.end(),
                     [id](auto range) { return range.first <= id && id <= range.second; });
}

std::vector<uint32_t> HostCpus::online_ids() const {
  std::vector<uint32_t> ids;
  for (uint32_t id = 0; id < configured_; ++id) {
    if (is_online(id)) ids.push_back(id);
  }
  return ids;
}

const HostCpus& host_cpus() {
  static const HostCpus cpus =
      HostCpus::read("/sys/devices/system/cpu",
                     static_cast<uint32_t>(std::max<long>(::sysconf(_SC_NPROCESSORS_CONF), 1)));
  return cpus;
}

uint32_t online_cpu_count() {
  return static_cast<uint32_t>(std::max<long>(::sysconf(_SC_NPROCESSORS_ONLN), 1));
}

}  // namespace crosvm
