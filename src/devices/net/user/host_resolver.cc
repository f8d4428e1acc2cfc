#include "devices/net/user/host_resolver.h"

#include <fcntl.h>

#include <algorithm>
#include <span>

#include "base/fd.h"

namespace crosvm {

std::optional<IpAddress> resolver_in(std::string_view resolv_conf, bool v6) {
  constexpr std::string_view kKeyword = "nameserver";
  while (!resolv_conf.empty()) {
    std::string_view line = resolv_conf.substr(0, resolv_conf.find('\n'));
    resolv_conf.remove_prefix(std::min(line.size() + 1, resolv_conf.size()));
    if (!line.starts_with(kKeyword)) continue;
    line.remove_prefix(kKeyword.size());
    const size_t begin = line.find_first_not_of(" \t");
    if (begin == 0 || begin == std::string_view::npos) continue;
    const std::string_view word = line.substr(begin, line.find_first_of(" \t\r", begin) - begin);
    const auto address = IpAddress::parse(word.substr(0, word.find('%')));
    if (!address || address->v6 != v6) continue;
    return word.contains('%') ? std::nullopt : address;
  }
  return std::nullopt;
}

std::string read_resolv_conf() {
  constexpr size_t kMostBytes = 16 << 10;
  std::string text(kMostBytes, '\0');
  const auto file = open_path("/etc/resolv.conf", O_RDONLY);
  text.resize(file ? read_full(*file, std::as_writable_bytes(std::span(text)), "").value_or(0) : 0);
  return text;
}

}  // namespace crosvm
