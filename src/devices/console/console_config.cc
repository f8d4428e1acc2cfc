#include "devices/console/console_config.h"

#include <algorithm>
#include <bit>
#include <string_view>

#include "base/format.h"

namespace crosvm {

static Result<void> read_kv(const KvValue& value, ConsolePortConfig& port) {
  return value.read_struct({kv_key("output", port.output), kv_key("input", port.input),
                            kv_key("sizes", port.sizes), kv_key("name", port.name),
                            kv_key("console", port.console), kv_key("timestamp", port.timestamp)});
}

namespace {

constexpr uint16_t kLargestQueue = 32768;

Result<void> check_name(const std::string& name) {
  if (!name.empty() && name.size() <= ConsoleConfig::kLongestName) return {};
  return fail(
      Error::invalid(format_text("port name \"{}\" has {} bytes; give 1 to {}",
                                 std::string_view(name).substr(0, ConsoleConfig::kLongestName),
                                 name.size(), ConsoleConfig::kLongestName)));
}

Result<void> check(const ConsoleConfig& config) {
  if (config.ports.empty() || config.ports.size() > ConsoleConfig::kMostPorts) {
    return fail(Error::invalid(format_text("a console device has 1 to {} ports, not {}",
                                           ConsoleConfig::kMostPorts, config.ports.size())));
  }
  for (const ConsolePortConfig& port : config.ports) {
    if (port.name) TRY(check_name(*port.name));
  }
  for (uint16_t size : config.queue_sizes) {
    if (std::has_single_bit(size) && size <= kLargestQueue) continue;
    return fail(Error::invalid(format_text(
        "queue size {} is not a power of two from 1 to {}; use one", size, kLargestQueue)));
  }
  return {};
}

std::string quote(std::string_view text) {
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

std::string port_text(const ConsolePortConfig& port) {
  std::string text;
  auto add = [&](std::string_view key, const std::optional<std::string>& value) {
    if (value) text += format_text("{}={},", key, quote(*value));
  };
  add("output", port.output);
  add("input", port.input);
  add("sizes", port.sizes);
  add("name", port.name);
  return text + format_text("console={},timestamp={}", port.console, port.timestamp);
}

}  // namespace

bool ConsoleConfig::multiport() const {
  return ports.size() > 1 || std::ranges::any_of(ports, [](const ConsolePortConfig& port) {
           return port.name.has_value();
         });
}

Result<ConsoleConfig> parse_console_config(const KeyValues& text) {
  ConsoleConfig config;
  TRY(text.read(
      {kv_key("ports", config.ports).require(), kv_key("queue-sizes", config.queue_sizes)}));
  TRY(check(config));
  return config;
}

std::string console_config_text(const ConsoleConfig& config) {
  std::string ports;
  for (const ConsolePortConfig& port : config.ports) {
    if (!ports.empty()) ports += ',';
    ports += '[' + port_text(port) + ']';
  }
  return format_text("ports=[{}],queue-sizes=[{},{}]", ports, config.queue_sizes[0],
                     config.queue_sizes[1]);
}

}  // namespace crosvm
