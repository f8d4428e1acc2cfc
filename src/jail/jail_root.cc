#include "jail/jail_root.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <span>
#include <string_view>

#include "base/fd.h"
#include "base/format.h"
#include "jail/jail_namespaces.h"

// <sys/mount.h> declares again what <linux/mount.h> does.
extern "C" int mount(const char*, const char*, const char*, unsigned long, const void*) noexcept;
extern "C" int umount2(const char*, int) noexcept;

namespace crosvm {
namespace {

constexpr unsigned long kMsRec = 16384;          // MS_REC
constexpr unsigned long kMsPrivate = 1UL << 18;  // MS_PRIVATE
constexpr int kMntDetach = 2;                    // MNT_DETACH
constexpr uint64_t kAttributes =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

std::unexpected<Error> failed(std::string_view doing, std::string_view object) {
  int error = errno;
  Error what = Error::from_errno(doing, object, error);
  return fail(Error(what.code(), what.what() + sandbox_hint(error)));
}

constexpr std::string_view kObject = "a file system for a device process";

/// A file system in memory with room for so many files and directories, the root too, and pages;
/// not mounted anywhere yet.
Result<Fd> make_root(const char* files, const char* size, uint64_t attributes) {
  Fd filesystem(static_cast<int>(::syscall(__NR_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  if (!filesystem) return failed("creating", kObject);
  const std::pair<const char*, const char*> options[] = {
      {"size", size}, {"nr_inodes", files}, {"mode", "0555"}};
  for (auto [key, value] : options) {
    if (::syscall(__NR_fsconfig, filesystem.get(), FSCONFIG_SET_STRING, key, value, 0) != 0) {
      return failed("configuring", kObject);
    }
  }
  if (::syscall(__NR_fsconfig, filesystem.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return failed("creating", kObject);
  }
  Fd root(static_cast<int>(::syscall(__NR_fsmount, filesystem.get(), FSMOUNT_CLOEXEC, attributes)));
  if (!root) return failed("mounting", kObject);
  return root;
}

Result<Fd> make_empty_root() { return make_root("1", "4k", kAttributes); }

/// One that has /etc/resolv.conf.
Result<Fd> make_root_with_resolver(std::string_view text) {
  Fd root = TRY(make_root("3", "64k", kAttributes & ~uint64_t{MOUNT_ATTR_RDONLY}));
  if (::mkdirat(root.get(), "etc", 0555) != 0) return failed("filling", kObject);
  Fd file(::openat(root.get(), "etc/resolv.conf", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
  if (!file) return failed("filling", kObject);
  TRY(write_full(file, std::as_bytes(std::span(text)), "a device process's /etc/resolv.conf"));
  file = {};
  mount_attr attributes = {};
  attributes.attr_set = MOUNT_ATTR_RDONLY;
  if (::syscall(__NR_mount_setattr, root.get(), "", AT_EMPTY_PATH, &attributes,
                sizeof(attributes)) != 0) {
    return failed("making read-only", kObject);
  }
  return root;
}

/// A mount of `path` alone, without what is mounted below it; not attached anywhere yet.
Result<Fd> clone_directory(const std::string& path) {
  TRY(check_pivot_root(path, "--pivot-root"));
  Fd root(static_cast<int>(
      ::syscall(__NR_open_tree, AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
  if (!root) return failed("cloning the mount of", path);
  mount_attr attributes = {};
  attributes.attr_set = kAttributes;
  if (::syscall(__NR_mount_setattr, root.get(), "", AT_EMPTY_PATH, &attributes,
                sizeof(attributes)) != 0) {  // Linux 5.12
    return failed("making read-only", path);
  }
  return root;
}

/// Whether there is anything in the directory at `path`. Errors: the errno of listing it.
Result<bool> has_entries(const std::string& path) {
  struct Closer {
    void operator()(DIR* directory) const { ::closedir(directory); }
  };
  const std::unique_ptr<DIR, Closer> directory(::opendir(path.c_str()));
  if (!directory || ::access(path.c_str(), X_OK) != 0) {
    return fail(Error::from_errno("entering", path));
  }
  while (const dirent* entry = ::readdir(directory.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") return true;
  }
  return false;
}

}  // namespace

Result<void> check_pivot_root(const std::string& path, std::string_view option) {
  constexpr std::string_view kFix = "give an empty directory, or leave the option out";
  const auto refuse = [&](std::errc code, std::string_view cause) {
    return fail(Error(code, format_text("{} {}: {}; {}", option, path, cause, kFix)));
  };
  if (!path.starts_with('/') || path.find_first_not_of('/') == std::string::npos) {
    return refuse(std::errc::invalid_argument, "not the absolute path of a directory other than /");
  }
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) {
    const Error why = Error::from_errno("looking at", path);
    return refuse(why.code(), why.what());
  }
  if (!S_ISDIR(status.st_mode)) return refuse(std::errc::not_a_directory, "not a directory");
  const Result<bool> entries = has_entries(path);
  if (!entries) {
    return refuse(entries.error().code(),
                  format_text("{}, which the user of crosvm must be able to list and enter",
                              entries.error().what()));
  }
  if (*entries) return refuse(std::errc::directory_not_empty, "the directory is not empty");
  return {};
}

Result<void> pivot_into_root(const std::optional<std::string>& directory,
                             std::string_view resolv_conf) {
  constexpr std::string_view kMounts = "the mounts of a device process";
  constexpr std::string_view kRoot = "the root directory of a device process";
  // Nothing that happens here is seen outside, nor the other way round.
  if (::mount(nullptr, "/", nullptr, kMsRec | kMsPrivate, nullptr) != 0) {
    return failed("making private", kMounts);
  }
  Fd root = !resolv_conf.empty() ? TRY(make_root_with_resolver(resolv_conf))
            : directory          ? TRY(clone_directory(*directory))
                                 : TRY(make_empty_root());
  // On top of the old root, so that no directory need exist; then the two change places, and the
  // old one, now on top, goes (pivot_root(2), "pivot_root(".", ".")").
  if (::syscall(__NR_move_mount, root.get(), "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) != 0 ||
      ::fchdir(root.get()) != 0) {
    return failed("mounting", kRoot);
  }
  if (::syscall(__NR_pivot_root, ".", ".") != 0) return failed("changing", kRoot);
  if (::umount2(".", kMntDetach) != 0) return failed("leaving", kMounts);
  if (::chdir("/") != 0) return failed("entering", kRoot);
  return {};
}

}  // namespace crosvm
