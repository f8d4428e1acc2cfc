#include "platform/serial_backend.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <utility>

#include "base/format.h"
#include "base/user_file.h"
#include "platform/unix_output.h"

namespace crosvm {
namespace {

std::string_view type_name(SerialConfig::Type type) {
  switch (type) {
    case SerialConfig::Type::kFile:
      return "file";
    case SerialConfig::Type::kStdout:
      return "stdout";
    case SerialConfig::Type::kSink:
      return "sink";
    case SerialConfig::Type::kSyslog:
      return "syslog";
    case SerialConfig::Type::kUnix:
      return "unix";
    case SerialConfig::Type::kUnixStream:
      return "unix-stream";
  }
  return "unknown";
}

std::string_view hardware_name(SerialConfig::Hardware hardware) {
  switch (hardware) {
    case SerialConfig::Hardware::kSerial:
      return "serial";
    case SerialConfig::Hardware::kVirtioConsole:
      return "virtio-console";
    case SerialConfig::Hardware::kDebugcon:
      return "debugcon";
  }
  return "unknown";
}

std::string port_name(const SerialConfig& config) {
  return format_text("{} {}", hardware_name(config.hardware), config.num);
}

/// A standard descriptor of this process, ours to close.
Result<Fd> standard_descriptor(int number, std::string_view name, std::string_view instead) {
  Fd copy(::fcntl(number, F_DUPFD_CLOEXEC, 0));
  if (!copy) {
    return fail(Error::invalid(
        format_text("{} is not open; start crosvm with it open or use {}", name, instead)));
  }
  return copy;
}

timespec realtime() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now;
}

Result<void> check(const SerialConfig& config) {
  using Type = SerialConfig::Type;
  const bool needs_path =
      config.type == Type::kFile || config.type == Type::kUnix || config.type == Type::kUnixStream;
  if (needs_path && (!config.path || config.path->empty())) {
    return fail(
        Error::invalid(format_text("type={} needs a path; add path=PATH", type_name(config.type))));
  }
  if (config.input_unix_stream && config.type != Type::kUnixStream) {
    return fail(Error::invalid(format_text(
        "input-unix-stream needs type=unix-stream, but the type is {}", type_name(config.type))));
  }
  if (config.input_unix_stream && (config.input || config.stdin_input)) {
    return fail(Error::invalid(
        format_text("input-unix-stream and {} both give the input; leave out one of them",
                    config.input ? "input=" : "stdin")));
  }
  if (config.input && config.stdin_input) {
    return fail(Error::invalid("input= and stdin both give the input; leave out one of them"));
  }
  return {};
}

/// Opens without waiting: a FIFO that nobody reads, or a line without a carrier, must not hold up
/// the start.
Result<Fd> open_output_file(const std::string& path) {
  auto file = open_user_file(path, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_NONBLOCK);
  struct stat status{};
  if (file || file.error().code() != std::errc::no_such_device_or_address ||
      ::stat(path.c_str(), &status) != 0 || !S_ISFIFO(status.st_mode)) {
    return file;
  }
  return fail(Error(std::errc::no_such_device_or_address,
                    format_text("opening FIFO {}: nobody reads it; start its reader first", path)));
}

Result<void> open_output(const SerialConfig& config, const SerialHost& host, SerialBackend& backend,
                         Fd& stream) {
  switch (config.type) {
    case SerialConfig::Type::kSink:
      backend.output = make_sink_output();
      return {};
    case SerialConfig::Type::kSyslog:
      backend.output = make_syslog_output(port_name(config));
      return {};
    case SerialConfig::Type::kStdout: {
      Fd out = TRY(standard_descriptor(STDOUT_FILENO, "standard output", "type=file,path=PATH"));
      backend.output = TRY(make_fd_output(std::move(out), host.stop_event, "standard output"));
      return {};
    }
    case SerialConfig::Type::kFile: {
      Fd file = TRY(open_output_file(*config.path));
      backend.output = TRY(make_fd_output(std::move(file), host.stop_event, *config.path));
      return {};
    }
    case SerialConfig::Type::kUnix:
      backend.output = TRY(make_unix_datagram_output(host.loop, *config.path));
      return {};
    case SerialConfig::Type::kUnixStream: {
      Fd socket = TRY(connect_unix_stream(*config.path));
      if (config.input_unix_stream) stream = TRY(socket.duplicate());
      backend.output = TRY(make_fd_output(std::move(socket), host.stop_event, *config.path));
      return {};
    }
  }
  return {};
}

Result<void> open_input(const SerialConfig& config, const SerialHost& host, SerialBackend& backend,
                        Fd stream) {
  if (stream) {
    backend.input = std::make_unique<SerialInput>(host.loop, std::move(stream), *config.path);
  } else if (config.input) {
    Fd file = TRY(open_user_input(*config.input));
    backend.input = std::make_unique<SerialInput>(host.loop, std::move(file), *config.input);
  } else if (config.stdin_input) {
    Fd in = TRY(standard_descriptor(STDIN_FILENO, "standard input", "input=PATH"));
    backend.reads_terminal = ::isatty(in.get()) == 1;
    auto leave = backend.reads_terminal ? host.leave : nullptr;
    backend.input =
        std::make_unique<SerialInput>(host.loop, std::move(in), "standard input", std::move(leave));
  }
  return {};
}

Result<SerialBackend> open_parts(const SerialConfig& config, const SerialHost& host) {
  TRY(check(config));
  SerialBackend backend;
  Fd stream;
  const bool only_output = config.hardware == SerialConfig::Hardware::kDebugcon;
  TRY(open_output(config, host, backend, stream));
  if (!only_output) TRY(open_input(config, host, backend, std::move(stream)));
  const bool stamped =
      config.out_timestamp && !only_output && config.type != SerialConfig::Type::kUnix;
  if (stamped) backend.output = make_timestamp_output(std::move(backend.output), realtime);
  return backend;
}

/// Our own opening of what `fd` has open, so that not waiting is a matter of ours alone: the flag
/// belongs to the opening, and a shell shares its terminal with us. `fd` itself where that cannot
/// be, or is not needed.
Fd own_output(Fd fd) {
  struct stat status{};
  const bool can_wait =
      ::fstat(fd.get(), &status) == 0 && (S_ISCHR(status.st_mode) || S_ISFIFO(status.st_mode));
  if (!can_wait) return fd;
  const std::string path = format_text("{}{}", kOwnDescriptors, fd.get());
  Fd own(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  return own ? std::move(own) : std::move(fd);
}

Result<void> open_output_end(const SerialConfig& config, const SerialHost& host, SerialEnds& ends) {
  switch (config.type) {
    case SerialConfig::Type::kSink:
      return {};
    case SerialConfig::Type::kSyslog:
      ends.line_output = make_syslog_output(port_name(config));
      ends.output_name = "syslog";
      return {};
    case SerialConfig::Type::kStdout:
      ends.output = own_output(
          TRY(standard_descriptor(STDOUT_FILENO, "standard output", "type=file,path=PATH")));
      ends.output_name = "standard output";
      return {};
    case SerialConfig::Type::kFile:
      ends.output = TRY(open_output_file(*config.path));
      break;
    case SerialConfig::Type::kUnix:
      ends.line_output = TRY(make_unix_datagram_output(host.loop, *config.path));
      break;
    case SerialConfig::Type::kUnixStream:
      ends.output = TRY(connect_unix_stream(*config.path));
      if (config.input_unix_stream) {
        ends.input = TRY(ends.output.duplicate());
        ends.input_name = *config.path;
      }
      break;
  }
  ends.output_name = *config.path;
  return {};
}

Result<void> open_input_end(const SerialConfig& config, const SerialHost& host, SerialEnds& ends) {
  if (config.input) {
    ends.input = TRY(open_user_input(*config.input));
    ends.input_name = *config.input;
  } else if (config.stdin_input) {
    ends.input_name = "standard input";
    ends.input = TRY(standard_descriptor(STDIN_FILENO, ends.input_name, "input=PATH"));
    if (::isatty(ends.input.get()) != 1) return {};
    ends.keyboard = std::make_unique<SerialInput>(host.loop, std::move(ends.input), ends.input_name,
                                                  host.leave);
  }
  return {};
}

Result<SerialEnds> open_ends(const SerialConfig& config, const SerialHost& host) {
  TRY(check(config));
  SerialEnds ends;
  TRY(open_output_end(config, host, ends));
  TRY(open_input_end(config, host, ends));
  return ends;
}

}  // namespace

Result<SerialBackend> open_serial_backend(const SerialConfig& config, const SerialHost& host) {
  return with_context(open_parts(config, host), port_name(config));
}

Result<SerialEnds> open_serial_ends(const SerialConfig& config, const SerialHost& host) {
  return with_context(open_ends(config, host), port_name(config));
}

}  // namespace crosvm
