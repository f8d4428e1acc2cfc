#include "jail/empty_network.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <string>
#include <system_error>

#include "base/fd.h"
#include "base/format.h"
#include "jail/jail_namespaces.h"

namespace crosvm {
namespace {

Result<void> write_file(const std::string& path, const std::string& text) {
  Fd fd = TRY(open_path(path, O_WRONLY));
  return write_full(fd, std::as_bytes(std::span(text)), path);
}

/// Root inside is who we are outside; nobody else exists there.
Result<void> write_own_id_map(uid_t uid, gid_t gid) {
  TRY(write_file("/proc/self/setgroups", "deny"));
  TRY(write_file("/proc/self/uid_map", format_text("0 {} 1", uid)));
  return write_file("/proc/self/gid_map", format_text("0 {} 1", gid));
}

}  // namespace

Result<void> enter_empty_network() {
  if (::unshare(CLONE_NEWNET) == 0) return {};
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) {
    const int error = errno;
    const Error what = Error::from_errno(
        "creating", "a user and a network namespace for the device processes", error);
    return fail(Error(what.code(), what.what() + sandbox_hint(error)));
  }
  return write_own_id_map(uid, gid);
}

}  // namespace crosvm
