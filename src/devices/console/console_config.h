#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/key_value.h"
#include "base/result.h"

namespace crosvm {

/// One port: what it is connected with, and how the guest sees it.
struct ConsolePortConfig {
  std::optional<std::string> output;  ///< file, FIFO; none: what the guest writes is discarded
  std::optional<std::string> input;   ///< file, FIFO; none: the guest reads nothing
  std::optional<std::string> sizes;   ///< pipe of ConsoleSize records: the terminal's size
  std::optional<std::string> name;    ///< for the guest's /dev/virtio-ports
  bool console = false;               ///< an hvc console also when the device has control queues
  bool timestamp = false;             ///< the time before each line of the output

  friend bool operator==(const ConsolePortConfig&, const ConsolePortConfig&) = default;
};

/// The configuration of a console device:
/// `ports=[[output=log.txt,input=keys.fifo,console],[name=agent]],queue-sizes=[256,256]`.
struct ConsoleConfig {
  static constexpr size_t kMostPorts = 31;
  static constexpr size_t kLongestName = 255;  // bytes

  std::vector<ConsolePortConfig> ports;
  /// Receive and transmit, for each port; powers of two.
  std::array<uint16_t, 2> queue_sizes{256, 256};

  /// Whether the device has control queues: for names and for several ports. Without them its one
  /// port is a console.
  bool multiport() const;

  friend bool operator==(const ConsoleConfig&, const ConsoleConfig&) = default;
};

/// Errors: invalid_argument naming the key.
Result<ConsoleConfig> parse_console_config(const KeyValues& text);
/// The text that parses to `config`.
std::string console_config_text(const ConsoleConfig& config);

/// A terminal's size, as sent through a port's `sizes` pipe: one record each, in host byte order.
struct ConsoleSize {
  uint16_t cols = 0;
  uint16_t rows = 0;

  friend bool operator==(const ConsoleSize&, const ConsoleSize&) = default;
};

}  // namespace crosvm
