#include "disk/new_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "base/format.h"

namespace crosvm {

namespace {

std::string folder_of(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

Result<std::string> other_name(const std::string& path) {
  uint32_t number = 0;
  if (::getrandom(&number, sizeof(number), 0) != sizeof(number)) {
    return fail(Error::from_errno("making", path));
  }
  return format_text("{}.new-{:08x}", path, number);
}

/// The only way to give a file its first name that needs no capability.
std::string name_in_proc(const Fd& fd) { return format_text("/proc/self/fd/{}", fd.get()); }

/// A file without a name that can get one; nothing where there is no such thing.
Fd open_unnamed(const std::string& path) {
  Fd fd(::open(folder_of(path).c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0666));
  if (!fd) return {};
  struct stat own{};
  struct stat seen{};
  const bool can_be_named = ::fstat(fd.get(), &own) == 0 &&
                            ::stat(name_in_proc(fd).c_str(), &seen) == 0 &&
                            own.st_dev == seen.st_dev && own.st_ino == seen.st_ino;
  return can_be_named ? std::move(fd) : Fd();
}

}  // namespace

Result<NewFile> NewFile::create(std::string path, Until until) {
  if (until == Until::kNoName) {
    if (Fd fd = open_unnamed(path)) return NewFile(std::move(path), {}, std::move(fd));
  }
  for (;;) {
    std::string temporary = TRY(other_name(path));
    Fd fd(::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (fd) return NewFile(std::move(path), std::move(temporary), std::move(fd));
    if (errno != EEXIST) return fail(Error::from_errno("making", path));
  }
}

NewFile::~NewFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

/// Under its own name, or, where something has that, under another.
Result<void> NewFile::link() {
  std::string name = path_;
  while (::linkat(AT_FDCWD, name_in_proc(fd_).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) !=
         0) {
    if (errno != EEXIST) return fail(Error::from_errno("making", path_));
    name = TRY(other_name(path_));
  }
  if (name != path_) temporary_ = std::move(name);
  return {};
}

Result<void> NewFile::commit() {
  if (::fsync(fd_.get()) != 0) return fail(Error::from_errno("writing", path_));
  if (temporary_.empty()) TRY(link());
  if (!temporary_.empty() && ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return fail(Error::from_errno("making", path_));
  }
  temporary_.clear();
  // The name, too, is to survive a power cut. Some file systems cannot; then it is there at least.
  const Fd directory(::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory) (void)::fsync(directory.get());
  return {};
}

}  // namespace crosvm
