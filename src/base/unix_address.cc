#include "base/unix_address.h"

#include <fcntl.h>

#include "base/format.h"

namespace crosvm {
namespace {

constexpr size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;

bool has_nul(const std::string& path) { return path.find('\0') != std::string::npos; }

}  // namespace

Result<UnixAddress> UnixAddress::of(const std::string& path) {
  if (path.empty()) {
    return fail(Error::invalid("the path of a socket is empty; give the path of a file"));
  }
  if (has_nul(path)) {
    return fail(Error::invalid("the path of a socket has a NUL byte in it; use one without"));
  }
  if (path.size() > kMaxPath) {
    return fail(Error::invalid(
        format_text("socket path {}: a socket path has 1 to {} bytes, this has {}; use a shorter "
                    "one",
                    path, kMaxPath, path.size())));
  }
  UnixAddress result;
  result.address_.sun_family = AF_UNIX;
  path.copy(result.address_.sun_path, path.size());
  return result;
}

Result<UnixAddress> UnixAddress::of_long(const std::string& path) {
  if (path.size() <= kMaxPath || has_nul(path)) return of(path);
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  Fd opened(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!opened) return fail(Error::from_errno("opening directory", directory));
  const std::string through = format_text("{}{}/{}", kOwnDescriptors, opened.get(), name);
  if (name.empty() || through.size() > kMaxPath) {
    return fail(Error::invalid(
        format_text("socket path {}: the name of a socket in a directory of a long path has 1 to "
                    "80 bytes, this has {}; use a shorter one",
                    path, name.size())));
  }
  UnixAddress result = TRY(of(through));
  result.directory_ = std::move(opened);
  return result;
}

}  // namespace crosvm
