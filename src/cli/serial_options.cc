#include "cli/serial_options.h"

#include <algorithm>
#include <array>
#include <bit>
#include <tuple>

#include "base/format.h"
#include "base/key_value.h"
#include "pci/pci_address.h"

namespace crosvm {

using Type = SerialConfig::Type;
using Hardware = SerialConfig::Hardware;

static constexpr std::array<KvName<Type>, 6> kv_names(Type) {
  return {{{"file", Type::kFile},
           {"stdout", Type::kStdout},
           {"sink", Type::kSink},
           {"syslog", Type::kSyslog},
           {"unix", Type::kUnix},
           {"unix-stream", Type::kUnixStream}}};
}

static constexpr std::array<KvName<Hardware>, 4> kv_names(Hardware) {
  return {{{"serial", Hardware::kSerial},
           {"virtio-console", Hardware::kVirtioConsole},
           {"legacy-virtio-console", Hardware::kVirtioConsole},
           {"debugcon", Hardware::kDebugcon}}};
}

namespace {

constexpr uint8_t kPorts = 4;         // COM1 to COM4
constexpr size_t kLongestName = 255;  // of a virtio-console port, in bytes
constexpr uint16_t kLargestQueue = 32768;

template <class E>
std::string_view name_of(E value) {
  for (const KvName<E>& entry : kv_names(E())) {
    if (entry.value == value) return entry.name;
  }
  return "";
}

std::string describe(const SerialConfig& port) {
  return format_text("{} {}", name_of(port.hardware), port.num);
}

/// The keys that virtio-console alone has.
Result<void> check_virtio_keys(const SerialConfig& port) {
  if (port.hardware != Hardware::kVirtioConsole) {
    if (port.pci_address) {
      return fail(Error::invalid("pci-address is for hardware=virtio-console only"));
    }
    if (port.max_queue_sizes) {
      return fail(Error::invalid("max-queue-sizes is for hardware=virtio-console only"));
    }
    return {};
  }
  if (port.pci_address) {
    TRY(with_context(PciAddress::parse(*port.pci_address), "pci-address"));
  }
  if (port.name && (port.name->empty() || port.name->size() > kLongestName)) {
    return fail(Error::invalid(
        format_text("name has {} bytes; give 1 to {}", port.name->size(), kLongestName)));
  }
  if (!port.max_queue_sizes) return {};
  const std::vector<uint16_t>& sizes = *port.max_queue_sizes;
  const bool good = sizes.size() == 2 && std::ranges::all_of(sizes, [](uint16_t size) {
                      return std::has_single_bit(size) && size <= kLargestQueue;
                    });
  if (good) return {};
  return fail(Error::invalid(
      format_text("max-queue-sizes takes the sizes of the receive and the transmit queue, powers "
                  "of two up to {}: max-queue-sizes=[256,256]",
                  kLargestQueue)));
}

Result<void> check_keys(const SerialConfig& port) {
  TRY(check_virtio_keys(port));
  if (port.input && port.stdin_input) {
    return fail(Error::invalid("input and stdin cannot both be given: a port has one input"));
  }
  if (port.hardware == Hardware::kSerial && (port.num < 1 || port.num > kPorts)) {
    return fail(
        Error::invalid(format_text("num={} is not a serial port; use 1 to {}", port.num, kPorts)));
  }
  if (port.num < 1) return fail(Error::invalid("num=0 is not a port; numbers start at 1"));
  return {};
}

/// Mistakes that the reference finds when it opens the port.
Result<void> check_backend(const SerialConfig& port) {
  bool needs_path =
      port.type == Type::kFile || port.type == Type::kUnix || port.type == Type::kUnixStream;
  if (needs_path && !port.path) {
    return fail(Error::invalid(
        format_text("{}: type={} needs path=…", describe(port), name_of(port.type))));
  }
  if (!port.input_unix_stream) return {};
  if (port.type != Type::kUnixStream) {
    return fail(Error::invalid(
        format_text("{}: input-unix-stream needs type=unix-stream", describe(port))));
  }
  if (port.input) {
    return fail(Error::invalid(
        format_text("{}: input and input-unix-stream cannot both be given", describe(port))));
  }
  return {};
}

Result<void> check_together(const std::vector<SerialConfig>& ports) {
  const SerialConfig* earlycon = nullptr;
  const SerialConfig* reader = nullptr;
  for (const SerialConfig& port : ports) {
    for (const SerialConfig* other = ports.data(); other != &port; ++other) {
      if (other->hardware == port.hardware && other->num == port.num) {
        return fail(Error::invalid(
            format_text("serial port {} is given twice; give each its own num", describe(port))));
      }
    }
    if (port.earlycon && port.hardware != Hardware::kSerial) {
      return fail(Error::invalid(
          format_text("serial port {}: earlycon needs hardware=serial", describe(port))));
    }
    if (port.earlycon && earlycon) {
      return fail(Error::invalid(format_text("serial ports {} and {} both have earlycon",
                                             describe(*earlycon), describe(port))));
    }
    if (port.stdin_input && reader) {
      return fail(Error::invalid(format_text("serial ports {} and {} both read stdin",
                                             describe(*reader), describe(port))));
    }
    if (port.earlycon) earlycon = &port;
    if (port.stdin_input) reader = &port;
    TRY(with_context(check_backend(port), "serial port"));
  }
  return {};
}

bool has_port(const std::vector<SerialConfig>& ports, uint8_t num) {
  return std::ranges::any_of(ports, [&](const SerialConfig& port) {
    return port.hardware == Hardware::kSerial && port.num == num;
  });
}

void add_defaults(std::vector<SerialConfig>& ports, bool other_console) {
  bool has_console = other_console || std::ranges::any_of(ports, &SerialConfig::console);
  // A port that was told to read stdin keeps it for itself.
  bool stdin_taken = std::ranges::any_of(ports, &SerialConfig::stdin_input);
  for (uint8_t num = 1; num <= kPorts; ++num) {
    if (has_port(ports, num)) continue;
    SerialConfig port;
    port.num = num;
    if (num == 1 && !has_console) {
      port.type = Type::kStdout;
      port.console = true;
      port.stdin_input = !stdin_taken;
    }
    ports.push_back(port);
  }
}

Result<void> read_keys(std::string_view text, SerialConfig& port) {
  return read_key_values(
      text,
      {kv_key("type", port.type), kv_key("hardware", port.hardware), kv_key("name", port.name),
       kv_key("path", port.path), kv_key("input", port.input),
       kv_key("input-unix-stream", port.input_unix_stream), kv_key("num", port.num),
       kv_key("console", port.console), kv_key("earlycon", port.earlycon),
       kv_key("stdin", port.stdin_input),
       kv_key("out-timestamp", port.out_timestamp).or_alias("out_timestamp"),
       kv_key("debugcon-port", port.debugcon_port).or_alias("debugcon_port"),
       kv_key("pci-address", port.pci_address), kv_key("max-queue-sizes", port.max_queue_sizes)});
}

}  // namespace

Result<SerialConfig> parse_serial(std::string_view text) {
  SerialConfig port;
  TRY(read_keys(text, port));
  TRY(check_keys(port));
  return port;
}

Result<SerialConfig> parse_console_port(std::string_view text) {
  SerialConfig port;
  port.hardware = Hardware::kVirtioConsole;
  TRY(read_keys(text, port));
  const Hardware given = std::exchange(port.hardware, Hardware::kVirtioConsole);
  TRY(check_keys(port));
  TRY(check_backend(port));
  port.hardware = given;
  return port;
}

Result<void> complete_serial(std::vector<SerialConfig>& ports, bool other_console) {
  TRY(check_together(ports));
  add_defaults(ports, other_console);
  std::ranges::sort(ports, {},
                    [](const SerialConfig& port) { return std::tuple(port.hardware, port.num); });
  return {};
}

}  // namespace crosvm
