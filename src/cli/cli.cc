#include "cli/cli.h"

#include <charconv>
#include <cstdio>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/format.h"
#include "base/log.h"
#include "cli/command_line.h"
#include "cli/disk_program.h"
#include "cli/doctor.h"
#include "cli/doctor_processes.h"
#include "cli/globals.h"
#include "cli/help.h"
#include "cli/run_command.h"
#include "cli/serve_options.h"
#include "control/client.h"

namespace crosvm {
namespace {

int run(RunOptions options, const Globals& globals, const RunVm& run_vm) {
  Result<Config> config = make_config(std::move(options));
  if (!config) {
    // Also as it is, for callers that read stderr without the log's prefix (cli.md 6.3).
    std::fprintf(stderr, "%s\n", config.error().what().c_str());
    return fail_with(config.error());
  }
  Result<ExitState> state = run_vm(*config);
  if (!state) return fail_with(state.error());
  log::info("exiting with {}", name_of(*state));
  return exit_status(*state, globals.extended_status);
}

int serve(const CommandLine& line, const ServeOptions& options) {
  Result<ServeConfig> config = make_serve_config(line, options);
  if (!config) return fail_with(config.error());
  if (Result<void> served = serve_devices(*config); !served) return fail_with(served.error());
  return succeed();
}

int examine(const CommandLine& line) {
  bool json = false;
  std::optional<std::string> vm_socket;
  for (const GivenOption& given : line.options()) {
    if (given.option->name == "json") json = true;
    if (given.option->name == "processes") vm_socket = given.value;
  }
  if (vm_socket) return run_doctor_processes(*vm_socket, json, stdout);
  return run_doctor({.json = json}, stdout);
}

int print_version() {
  std::string_view build_id = CROSVM_BUILD_ID;
  print(format_text("crosvm {}{}{}\n", CROSVM_VERSION, build_id.empty() ? "" : "-", build_id));
  return succeed();
}

Error bad_positional(const CommandLine& line, size_t index, std::string_view why) {
  return Error::invalid(format_text("Error parsing positional argument '{}' with value '{}': {}",
                                    line.command().positionals[index].name, line.positionals[index],
                                    why));
}

/// A plain integer argument (cli.md 1.1.2): decimal digits, perhaps after a `+`.
template <class T>
Result<T> positional_number(const CommandLine& line, size_t index) {
  std::string_view text = line.positionals[index];
  std::string_view digits = text.starts_with('+') ? text.substr(1) : text;
  T number = 0;
  const char* end = digits.data() + digits.size();
  auto [stopped, code] = std::from_chars(digits.data(), end, number);
  if (code == std::errc() && stopped == end) return number;
  return fail(bad_positional(
      line, index,
      format_text("not a decimal number from 0 to {}", std::numeric_limits<T>::max())));
}

Result<control::Request> resize_request(const CommandLine& line) {
  constexpr uint64_t kSector = 512;
  const auto index = TRY(positional_number<uint64_t>(line, 0));
  if (line.positionals[1].starts_with('+')) {
    return fail(bad_positional(
        line, 1, "a size is that of the whole disk, not what is to be added; leave out the +"));
  }
  const auto bytes = TRY(positional_number<uint64_t>(line, 1));
  if (bytes == 0) {
    return fail(bad_positional(
        line, 1,
        format_text("a disk has at least one sector; give {} or a multiple of it", kSector)));
  }
  if (bytes % kSector != 0) {
    return fail(bad_positional(
        line, 1, format_text("a disk has a number of sectors; give a multiple of {}", kSector)));
  }
  return control::DiskCommand{.disk_index = index,
                              .command = control::disk_command::Resize{.new_size = bytes}};
}

/// What the VM's answer to `disk resize` may come from; it logs the exact reason itself.
std::string_view explain_resize(std::errc code) {
  switch (code) {
    case std::errc::no_such_device:
      return "the VM has no disk of that index: --block, --rwdisk, --root and the like are counted "
             "from 0 in the order of its command line, disks of --vhost-user are not";
    case std::errc::read_only_file_system:
      return "the disk is read-only in this VM; to change its size, start the VM without ro";
    case std::errc::invalid_argument:
      return "the disk cannot have this size, or its process has just ended; the VM's log says "
             "which, and what helps";
    case std::errc::io_error:
      return "the size is as it was, for the image's format or the host does not let it change; "
             "the VM's log says why, and what helps";
    default:
      return {};
  }
}

bool is_disk_resize(const CommandLine& line) { return line.command_name() == "disk resize"; }

/// What a control subcommand asks of the VM; none for the other subcommands.
Result<std::optional<control::Request>> control_request(const CommandLine& line) {
  std::string_view name = line.command().name;
  if (name == "stop") return control::Exit();
  if (name == "powerbtn") return control::Powerbtn();
  if (name == "sleepbtn") return control::Sleepbtn();
  if (name == "suspend") return control::SuspendVcpus();
  if (name == "resume") return control::ResumeVcpus();
  if (name == "gpe") {
    return control::Gpe{.gpe = TRY(positional_number<uint32_t>(line, 0)),
                        .clear_evt = std::nullopt};
  }
  if (is_disk_resize(line)) return TRY(resize_request(line));
  return std::nullopt;
}

int dispatch(const CommandLine& line, RunOptions options, const ServeOptions& serve_options,
             const Globals& globals, const RunVm& run_vm) {
  std::string_view name = line.command().name;
  if (name == "run") return run(std::move(options), globals, run_vm);
  if (is_serve_command(line)) return serve(line, serve_options);
  if (name == "version") return print_version();
  if (name == "doctor") return examine(line);
  auto request = control_request(line);
  if (!request) return refuse(request.error());
  if (*request) {
    std::string vm_socket(line.positionals.back());
    const bool resizes = is_disk_resize(line);
    return control::run_simple_client(resizes ? "disk" : name, vm_socket, **std::move(request),
                                      stdout, resizes ? explain_resize : nullptr);
  }
  return refuse(
      Error::invalid(format_text("`crosvm {}` is not supported by this build yet", name)));
}

}  // namespace

int crosvm_main(int argc, const char* const* argv, const RunVm& run_vm) {
  if (auto ready = ensure_standard_descriptors(); !ready) return fail_with(ready.error());
  std::vector<std::string_view> arguments;
  for (int i = 1; i < argc; ++i) arguments.emplace_back(argv[i]);
  Result<CommandLine> line = parse_command_line(root_command(), arguments);
  if (!line) return refuse(line.error());

  // Values are read before help is given: a mistake that stands before `--help` wins.
  RunOptions options;
  if (line->command().name == "run") {
    Result<RunOptions> read = read_run_options(*line);
    if (!read) return refuse(read.error());
    options = *std::move(read);
  }
  ServeOptions serve_options;
  if (is_serve_command(*line)) {
    Result<ServeOptions> read = read_serve_options(*line);
    if (!read) return refuse(read.error());
    serve_options = *std::move(read);
    line->help |=
        line->command().name == "devices" && serve_options.empty() && check_supported(*line);
  }
  if (line->help) {
    print(help_text(argc > 0 ? argv[0] : "crosvm", *line));
    return kSuccess;
  }
  if (auto supported = check_supported(*line); !supported) return refuse(supported.error());

  Globals globals = read_globals(*line);
  if (globals.document) {
    print(globals.document());
    return kSuccess;
  }
  if (is_disk_tool(*line)) return fail_with(execute_disk_program(argv));
  if (options.syslog_tag) globals.logging.syslog_tag = *options.syslog_tag;
  if (auto configured = configure_log(globals); !configured) return refuse(configured.error());
  warn_of_deprecated(*line);
  return dispatch(*line, std::move(options), serve_options, globals, run_vm);
}

}  // namespace crosvm
