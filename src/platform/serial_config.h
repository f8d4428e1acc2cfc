#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace crosvm {

/// One `--serial` (cli.md 1.5, SerialParameters), as parsed; opens nothing.
struct SerialConfig {
  enum class Type { kFile, kStdout, kSink, kSyslog, kUnix, kUnixStream };
  enum class Hardware { kSerial, kVirtioConsole, kDebugcon };

  Type type = Type::kSink;
  Hardware hardware = Hardware::kSerial;
  std::optional<std::string> name = std::nullopt;
  std::optional<std::string> path = std::nullopt;
  std::optional<std::string> input = std::nullopt;
  bool input_unix_stream = false;
  uint8_t num = 1;
  bool console = false;
  bool earlycon = false;
  bool stdin_input = false;
  bool out_timestamp = false;
  uint16_t debugcon_port = 0x402;
  std::optional<std::string> pci_address = std::nullopt;
  std::optional<std::vector<uint16_t>> max_queue_sizes = std::nullopt;
};

}  // namespace crosvm
