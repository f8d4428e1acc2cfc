#include "base/companion_program.h"

#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>

#include "base/format.h"

namespace crosvm {
namespace {

bool is_program(const std::string& path) {
  struct stat facts;
  return ::stat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode) &&
         ::access(path.c_str(), X_OK) == 0;
}

/// Where this program is. A root without /proc, or mounts that are not those of the start, know
/// only what the program was executed as.
std::string own_path() {
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof(path));
  if (length > 0) {
    std::string known(path, static_cast<size_t>(length));
    if (is_program(known)) return known;
  }
  // The kernel hands over an address as a number.
  const auto* executed = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
  return executed ? executed : "";
}

}  // namespace

Result<std::string> find_companion_program(std::string_view name) {
  const std::string own = own_path();
  const size_t slash = own.rfind('/');
  if (slash == std::string::npos) return find_companion_program(name, ".");
  return find_companion_program(name, std::string_view(own).substr(0, slash));
}

Result<std::string> find_companion_program(std::string_view name, std::string_view folder) {
  std::string beside = format_text("{}/{}", folder, name);
  if (is_program(beside)) return beside;
  std::string apart = format_text("{}/../libexec/crosvm/{}", folder, name);
  if (is_program(apart)) return apart;
  return fail(Error(std::errc::no_such_file_or_directory,
                    format_text("{} is neither {} nor {}: install it, executable, in one of these "
                                "places; it is built together with crosvm",
                                name, beside, apart)));
}

}  // namespace crosvm
