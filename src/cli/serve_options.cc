#include "cli/serve_options.h"

#include <algorithm>
#include <charconv>

#include "base/format.h"
#include "base/key_value.h"
#include "base/log.h"
#include "cli/disk_options.h"
#include "cli/net_options.h"
#include "cli/serial_options.h"
#include "cli/vsock_options.h"
#include "devices/net/net_config.h"

namespace crosvm {
namespace {

constexpr std::string_view kVhost = "vhost=";

Result<void> take_fd(ServeOptions& options, std::string_view value) {
  uint32_t number = 0;
  const char* end = value.data() + value.size();
  auto [stopped, code] = std::from_chars(value.data(), end, number);
  if (code != std::errc() || stopped != end) {
    return fail(Error::invalid("not the decimal number of a descriptor"));
  }
  options.fd = number;
  return {};
}

Result<void> take_jail(ServeOptions& options, std::string_view value) {
  SandboxOptions& jail = options.sandbox_options;
  return read_key_values(value, {kv_key("pivot-root", jail.pivot_root),
                                 kv_key("seccomp-policy-dir", jail.seccomp_policy_dir),
                                 kv_key("seccomp-log-failures", jail.seccomp_log_failures)});
}

/// `SOCKET,REST` of `device net`, whose paths have no commas.
Result<std::pair<std::string, std::string_view>> split_socket(std::string_view value) {
  const size_t comma = value.find(',');
  if (comma == 0 || comma == std::string_view::npos) {
    return fail(Error::invalid("give the socket's path, a comma, and what the card is on"));
  }
  return std::pair(std::string(value.substr(0, comma)), value.substr(comma + 1));
}

/// `IP,MASK,MAC`.
Result<TapAddress> read_address(std::string_view text) {
  const size_t first = text.find(',');
  const size_t second = first == std::string_view::npos ? first : text.find(',', first + 1);
  if (second == std::string_view::npos) {
    return fail(Error::invalid("a new tap takes SOCKET,IP,MASK,MAC"));
  }
  return TapAddress{.ip = TRY(parse_ipv4(text.substr(0, first))),
                    .netmask = TRY(parse_ipv4(text.substr(first + 1, second - first - 1))),
                    .mac = TRY(parse_mac(text.substr(second + 1)))};
}

Result<int> read_descriptor(std::string_view text) {
  int number = 0;
  const char* end = text.data() + text.size();
  auto [stopped, code] = std::from_chars(text.data(), end, number);
  if (code == std::errc() && stopped == end && number >= 0) return number;
  return fail(Error::invalid(format_text("`{}` is not the number of a descriptor", text)));
}

/// One card of `device net`; `name` is the option's.
Result<void> take_card(ServeOptions& options, std::string_view name, std::string_view value) {
  auto [socket, rest] = TRY(split_socket(value));
  ServeOptions::Net net{.socket = std::move(socket), .request = {}};
  if (name == "device") net.request.network = TRY(read_address(rest));
  if (name == "tap-fd") net.request.network = NetRequest::TapFd{TRY(read_descriptor(rest))};
  if (name == "tap-name") net.request.network = NetRequest::TapName{std::string(rest)};
  options.nets.push_back(std::move(net));
  return {};
}

Result<void> take(ServeOptions& options, std::string_view name, std::string_view value) {
  if (name == "async-executor") options.async_executor = TRY(parse_async_executor(value));
  if (name == "socket-path") options.socket_path = value;
  if (name == "socket") options.old_socket = value;
  if (name == "fd") return take_fd(options, value);
  if (name == "file") options.file = value;
  if (name == "output-file") options.output_file = value;
  if (name == "input-file") options.input_file = value;
  if (name == "syslog") options.syslog = true;
  if (name == "port") options.ports.push_back(TRY(parse_console_port(value)));
  if (name == "cid") options.cid = TRY(parse_cid(value));
  if (name == "vhost-socket") options.vhost_socket = value;
  if (name == "connect") options.connect.emplace_back(value);
  if (name == "listen") options.listen.emplace_back(value);
  if (name == "device" || name == "tap-fd" || name == "tap-name") {
    return take_card(options, name, value);
  }
  if (name == "mrg-rxbuf") options.mrg_rxbuf = true;
  if (name == "net") {
    auto [socket, rest] = TRY(split_vhost(value));
    options.nets.push_back({.socket = std::move(socket), .request = TRY(parse_net(rest))});
  }
  if (name == "disable-sandbox") options.sandbox = false;
  if (name == "jail") return take_jail(options, value);
  if (name == "block") {
    auto [socket, rest] = TRY(split_vhost(value));
    options.disks.push_back({.socket = std::move(socket), .config = TRY(parse_disk(rest))});
  }
  if (name == "serial") {
    auto [socket, rest] = TRY(split_vhost(value));
    options.serials.push_back({.socket = std::move(socket), .port = TRY(parse_console_port(rest))});
  }
  if (name == "vsock") {
    auto [socket, rest] = TRY(split_vhost(value));
    options.vsocks.push_back({.socket = std::move(socket), .config = TRY(parse_vsock(rest))});
  }
  return {};
}

Result<std::string> disk_text(const ServeOptions& options) {
  constexpr std::string_view kReadOnly = "read-only";
  BlockConfig disk;
  const size_t colon = options.file.find(':');
  disk.path = options.file.substr(0, colon);
  if (colon != std::string::npos) {
    const std::string_view suffix = std::string_view(options.file).substr(colon + 1);
    if (suffix != kReadOnly) {
      return fail(
          Error::invalid(format_text("--file {}: `{}` is not known behind the path; give "
                                     "`{}` or nothing",
                                     options.file, suffix, kReadOnly)));
    }
    disk.read_only = true;
  }
  if (disk.path.empty()) return fail(Error::invalid("--file: give the path of an image"));
  disk.sparse = false;  // no discard
  disk.async_executor = options.async_executor;
  return disk.to_text();
}

/// What is served is a console, whatever hardware a port was said to be.
SerialConfig as_console(SerialConfig port, std::string_view option) {
  if (port.hardware != SerialConfig::Hardware::kVirtioConsole) {
    log::warn(
        "{}: hardware= has no effect, this is a virtio console; leave it out, or give "
        "hardware=virtio-console",
        option);
  }
  port.hardware = SerialConfig::Hardware::kVirtioConsole;
  return port;
}

/// They describe the one port of a console without `--port` (cli.md 3.7).
void warn_of_what_ports_replace(const ServeOptions& options) {
  const auto warn = [](bool given, std::string_view option, std::string_view key) {
    if (!given) return;
    log::warn("{} has no effect with --port; say it there ({}), or leave out one of the two",
              option, key);
  };
  warn(options.output_file.has_value(), "--output-file", "type=file,path=PATH");
  warn(options.input_file.has_value(), "--input-file", "input=PATH");
  warn(options.syslog, "--syslog", "type=syslog");
}

Result<std::vector<SerialConfig>> console_ports(const ServeOptions& options) {
  const bool one_reads_stdin =
      std::ranges::count_if(options.ports, &SerialConfig::stdin_input) <= 1;
  if (!one_reads_stdin) {
    return fail(Error::invalid("--port: two ports read stdin; leave out stdin of one"));
  }
  if (!options.ports.empty()) {
    warn_of_what_ports_replace(options);
    std::vector<SerialConfig> ports;
    for (const SerialConfig& port : options.ports) ports.push_back(as_console(port, "--port"));
    return ports;
  }
  if (options.syslog && options.output_file) {
    return fail(
        Error::invalid("--syslog and --output-file cannot both be given: a port has one "
                       "output"));
  }
  SerialConfig port{.type = SerialConfig::Type::kStdout,
                    .hardware = SerialConfig::Hardware::kVirtioConsole,
                    .input = options.input_file,
                    .console = true,
                    .stdin_input = !options.syslog && !options.input_file};
  if (options.syslog) port.type = SerialConfig::Type::kSyslog;
  if (options.output_file) {
    port.type = SerialConfig::Type::kFile;
    port.path = options.output_file;
  }
  return std::vector{std::move(port)};
}

/// The kernel gets at a guest's memory by way of the process that has its device, and serves no
/// front-end.
Result<std::string> served_vsock_text(const VsockConfig& config) {
  if (config.backend == VsockConfig::Backend::kUser) return config.to_text();
  return fail(Error::invalid(
      "vsock: the kernel's socket device cannot be served by vhost-user; run the VM with --vsock "
      "cid=N, or name Unix sockets by connect or listen, which lead to them without the kernel's"));
}

Result<std::string> vsock_text(const ServeOptions& options) {
  VsockConfig config;
  config.cid = options.cid.value_or(0);
  TRY(with_context(check_guest_cid(config.cid), "--cid"));
  if (options.connect.empty() && options.listen.empty()) return served_vsock_text(config);
  if (options.vhost_socket) {
    return fail(Error::invalid(
        "--vhost-socket is of the kernel's device, and --connect and --listen are of ours; leave "
        "out one or the other"));
  }
  config.backend = VsockConfig::Backend::kUser;
  config.connect = TRY(VsockConfig::parse_rules("--connect", options.connect));
  config.listen = TRY(VsockConfig::parse_rules("--listen", options.listen));
  const std::string text = config.to_text();
  TRY(VsockConfig::parse(TRY(KeyValues::parse(text))));  // what the rules are to each other
  return text;
}

Result<ServedDevice> one_device(std::string_view kind, const ServeOptions& options) {
  ServedDevice device{.type = std::string(kind), .name = std::string(kind)};
  const int sockets = int{options.socket_path.has_value()} + int{options.old_socket.has_value()} +
                      int{options.fd.has_value()};
  if (sockets != 1) {
    return fail(Error::invalid(
        format_text("exactly one of --socket-path and --fd says where the front-end is; {}",
                    sockets == 0 ? "give one" : "leave out the others")));
  }
  device.fd = options.fd;
  device.socket = options.socket_path.value_or(options.old_socket.value_or(""));
  if (kind == "block") device.text = TRY(disk_text(options));
  if (kind == "vsock") device.text = TRY(vsock_text(options));
  if (kind == "console") device.ports = TRY(console_ports(options));
  return device;
}

Result<std::vector<ServedDevice>> net_devices(const ServeOptions& options) {
  std::vector<ServedDevice> devices;
  for (const ServeOptions::Net& net : options.nets) {
    if (net.request.vhost_device) {
      return fail(
          Error::invalid("--net: vhost-net and a front-end's socket cannot both be: the front-end "
                         "would do without us; leave out vhost-net"));
    }
    devices.push_back({.type = "net",
                       .name = format_text("net-{}", devices.size()),
                       .net = net.request,
                       .socket = net.socket});
  }
  return devices;
}

Result<std::vector<ServedDevice>> several_devices(const ServeOptions& options) {
  std::vector<ServedDevice> devices;
  size_t number = 0;
  for (const ServeOptions::Serial& serial : options.serials) {
    devices.push_back({.type = "console",
                       .name = format_text("serial-{}", number++),
                       .ports = {as_console(serial.port, "--serial")},
                       .socket = serial.socket});
  }
  const auto reads_stdin = [](const ServeOptions::Serial& serial) {
    return serial.port.stdin_input;
  };
  if (std::ranges::count_if(options.serials, reads_stdin) > 1) {
    return fail(Error::invalid("--serial: two consoles read stdin; leave out stdin of one"));
  }
  number = 0;
  for (const ServeOptions::Disk& disk : options.disks) {
    BlockConfig config = disk.config;
    if (!config.async_executor) config.async_executor = options.async_executor;
    devices.push_back({.type = "block",
                       .name = format_text("block-{}", number++),
                       .text = config.to_text(),
                       .socket = disk.socket});
  }
  number = 0;
  for (const ServeOptions::Vsock& vsock : options.vsocks) {
    devices.push_back({.type = "vsock",
                       .name = format_text("vsock-{}", number++),
                       .text = TRY(served_vsock_text(vsock.config)),
                       .socket = vsock.socket});
  }
  std::ranges::move(TRY(net_devices(options)), std::back_inserter(devices));
  return devices;
}

}  // namespace

Result<std::pair<std::string, std::string_view>> split_vhost(std::string_view text) {
  const Error missing =
      Error::invalid("vhost=PATH must come first: where the front-end finds the device");
  if (!text.starts_with(kVhost)) return fail(missing);
  std::string_view rest = text.substr(kVhost.size());
  std::string path;
  const char quote = !rest.empty() && (rest[0] == '"' || rest[0] == '\'') ? rest[0] : '\0';
  size_t at = quote != '\0' ? 1 : 0;
  const auto ends = [&](char c) { return quote != '\0' ? c == quote : c == ','; };
  for (; at < rest.size() && !ends(rest[at]); ++at) {
    if (quote != '\0' && rest[at] == '\\' && at + 1 < rest.size()) ++at;
    path += rest[at];
  }
  if (quote != '\0' && at++ == rest.size()) {
    return fail(Error::invalid("the quotation that begins behind vhost= has no end"));
  }
  if (path.empty()) return fail(missing);
  if (at < rest.size() && rest[at] != ',') {
    return fail(Error::invalid("a comma must follow the path behind vhost="));
  }
  return std::pair(std::move(path), rest.substr(std::min(rest.size(), at + 1)));
}

bool is_serve_command(const CommandLine& line) {
  return line.levels.size() > 1 &&
         (line.levels[1].command->name == "device" || line.levels[1].command->name == "devices");
}

Result<ServeOptions> read_serve_options(const CommandLine& line) {
  ServeOptions options;
  for (size_t level = 1; level < line.levels.size(); ++level) {
    for (const GivenOption& given : line.levels[level].options) {
      if (given.option->support == Support::kNotBuilt) continue;  // refused later
      if (auto taken = take(options, given.option->name, given.value); !taken) {
        return fail(given.error(taken.error().what()));
      }
    }
  }
  return options;
}

Result<ServeConfig> make_serve_config(const CommandLine& line, const ServeOptions& options) {
  ServeConfig config;
  if (line.levels[1].command->name == "device" && line.command().name == "net") {
    config.devices = TRY(net_devices(options));
    config.confined = true;
    if (!config.devices.empty()) {
      for (ServedDevice& device : config.devices) {
        if (options.mrg_rxbuf) device.net->mrg_rxbuf = true;
      }
      return config;
    }
    return fail(Error::invalid(
        "no card to serve; give --device, --tap-fd or --tap-name, each with a socket"));
  }
  if (line.levels[1].command->name == "device") {
    config.devices.push_back(TRY(one_device(line.command().name, options)));
    config.confined = true;
    return config;
  }
  config.devices = TRY(several_devices(options));
  config.jailed = options.sandbox;
  config.sandbox_options = options.sandbox_options;
  return config;
}

}  // namespace crosvm
