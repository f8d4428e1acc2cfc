#include "cli/disk_tools_main.h"

#include <csignal>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "cli/command_line.h"
#include "cli/disk_program.h"
#include "cli/globals.h"
#include "cli/help.h"
#include "cli/image_commands.h"

namespace crosvm {
namespace {

int work_on_images(const ImageCommand& command) {
  Result<int> status = command();
  if (!status) return fail_with(status.error());
  if (*status == kSuccess) return succeed();
  log::info("exiting with status {}", *status);
  return *status;
}

}  // namespace

int disk_tools_main(int argc, const char* const* argv) {
  ::signal(SIGXFSZ, SIG_IGN);  // an error of the write, after which nothing is left behind
  if (auto ready = ensure_standard_descriptors(); !ready) return fail_with(ready.error());
  std::vector<std::string_view> arguments;
  for (int i = 1; i < argc; ++i) arguments.emplace_back(argv[i]);
  Result<CommandLine> line = parse_command_line(root_command(), arguments);
  if (!line) return refuse(line.error());
  if (!is_disk_tool(*line)) {
    return refuse(
        Error::invalid("crosvm-disk is the part of crosvm that works on disk images: run crosvm, "
                       "as in `crosvm disk info IMAGE`"));
  }
  if (line->help) {
    print(help_text("crosvm", *line));
    return kSuccess;
  }
  if (auto supported = check_supported(*line); !supported) return refuse(supported.error());
  if (auto configured = configure_log(read_globals(*line)); !configured) {
    return refuse(configured.error());
  }
  warn_of_deprecated(*line);
  Result<ImageCommand> command = read_image_command(*line);
  if (!command) return refuse(command.error());
  return work_on_images(*command);
}

}  // namespace crosvm
