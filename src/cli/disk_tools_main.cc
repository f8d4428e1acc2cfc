#include "cli/disk_tools_main.h"

#include <cerrno>
#include <csignal>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "cli/command_line.h"
#include "cli/disk_program.h"
#include "cli/globals.h"
#include "cli/help.h"
#include "cli/image_commands.h"

namespace crosvm {
namespace {

std::string_view fix_for(std::errc code) {
  switch (static_cast<int>(code)) {
    case ENOSPC:
      return "; make room on its file system, or name a file on another";
    case EDQUOT:
      return "; the quota there is used up: remove what is not needed, or name a file elsewhere";
    case EFBIG:
      return "; it is larger than its file system or ulimit -f allows: name a file elsewhere, or "
             "raise it";
    case EIO:
      return "; the storage may be failing: see dmesg, and save what can be read";
    case ENOENT:
    case ENOTDIR:
      return "; check the path, all folders of which must be there";
    case EROFS:
      return "; name a file elsewhere";
    case EACCES:
    case EPERM:
      return "; it needs the rights to do so, also in the folder of a new file";
    default:
      return {};
  }
}

/// What failed deep below has no advice of its own; what was refused there has.
Error with_fix(const Error& error) {
  std::string what = error.what();
  if (what.find(';') == std::string::npos) what += fix_for(error.code());
  return Error(error.code(), std::move(what));
}

int work_on_images(const ImageCommand& command) {
  Result<int> status = command();
  if (!status) return fail_with(with_fix(status.error()));
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
