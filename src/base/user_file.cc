#include "base/user_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <string_view>

#include "base/format.h"

namespace crosvm {
namespace {

std::string_view fix_for(std::errc code, int flags) {
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  switch (code) {
    case std::errc::no_such_file_or_directory:
      return (flags & O_CREAT) != 0 ? "; make its directory first" : "; check the path";
    case std::errc::not_a_directory:
    case std::errc::filename_too_long:
    case std::errc::too_many_symbolic_link_levels:
      return "; check the path";
    case std::errc::is_a_directory:
      return "; name a file in it";
    case std::errc::permission_denied:
    case std::errc::operation_not_permitted:
      return writes ? "; make it writable for the user who starts crosvm"
                    : "; make it readable for the user who starts crosvm";
    case std::errc::read_only_file_system:
      return "; choose a place that can be written";
    case std::errc::bad_file_descriptor:
      return "; start crosvm with that descriptor open, and not close-on-exec";
    case std::errc::no_such_device_or_address:
      return "; it is a socket, or a device that is not there: name another file";
    default:
      return "";
  }
}

}  // namespace

Result<Fd> open_user_file(const std::string& path, int flags) {
  Result<Fd> file = open_path(path, flags);
  if (file) return file;
  const std::errc code = file.error().code();
  return fail(Error(code, format_text("{}{}", file.error().what(), fix_for(code, flags))));
}

Result<Fd> open_user_input(const std::string& path) {
  // A FIFO that nobody writes to yet must not hold up the start.
  Fd file = TRY(open_user_file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  struct stat status{};
  if (::fstat(file.get(), &status) == 0 && S_ISDIR(status.st_mode)) {
    return fail(Error::invalid(
        format_text("opening {}: it is a directory; name a file, FIFO or device", path)));
  }
  return file;
}

}  // namespace crosvm
