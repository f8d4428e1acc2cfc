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

bool link_unnamed(const Fd& fd, const std::string& name) {
  return ::linkat(AT_FDCWD, name_in_proc(fd).c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) ==
         0;
}

/// Replaces nothing: EEXIST.
bool move_to_free(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return true;
  // NFS and others do not know that.
  return errno == EINVAL && ::link(from.c_str(), to.c_str()) == 0 && ::unlink(from.c_str()) == 0;
}

std::optional<FileIdentity> identity_at(const std::string& name) {
  struct stat status{};
  if (::lstat(name.c_str(), &status) != 0) return std::nullopt;
  return FileIdentity(status.st_dev, status.st_ino);
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

NewFile::~NewFile() { remove_temporary(); }

void NewFile::remove_temporary() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

Error NewFile::errno_of_making() const { return Error::from_errno("making", path_); }

Error NewFile::came_meanwhile() const {
  return Error(std::errc::file_exists,
               path_ +
                   ": another file has got that name meanwhile, and stays; look what it is, or "
                   "give another name");
}

/// A name beside its place, if it has none yet.
Result<void> NewFile::link_aside() {
  while (temporary_.empty()) {
    std::string name = TRY(other_name(path_));
    if (link_unnamed(fd_, name)) {
      temporary_ = std::move(name);
    } else if (errno != EEXIST) {
      return fail(errno_of_making());
    }
  }
  return {};
}

Result<void> NewFile::place_first() {
  const bool placed =
      temporary_.empty() ? link_unnamed(fd_, path_) : move_to_free(temporary_, path_);
  if (!placed) return fail(errno == EEXIST ? came_meanwhile() : errno_of_making());
  temporary_.clear();
  state_ = State::kFirst;
  return {};
}

bool NewFile::exchange() {
  return ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0;
}

/// What has been taken away is looked at afterwards: before, it could still become another.
Result<void> NewFile::place_over(const FileIdentity& old) {
  TRY(link_aside());
  if (exchange()) {
    state_ = State::kExchanged;
    if (identity_at(temporary_) == old) return {};
    withdraw();
    return fail(came_meanwhile());
  }
  if (errno == ENOENT) return place_first();
  if (errno != EINVAL) return fail(errno_of_making());
  // The file system cannot exchange.
  if (identity_at(path_) != old) return fail(came_meanwhile());
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return fail(errno_of_making());
  temporary_.clear();
  state_ = State::kRenamed;
  return {};
}

Result<void> NewFile::place(const std::optional<FileIdentity>& old) {
  if (::fsync(fd_.get()) != 0) return fail(Error::from_errno("writing", path_));
  return old ? place_over(*old) : place_first();
}

void NewFile::withdraw() {
  if (state_ == State::kFirst) ::unlink(path_.c_str());
  if (state_ == State::kExchanged) (void)exchange();
  state_ = State::kMade;
}

void NewFile::settle() {
  remove_temporary();
  // The name, too, is to survive a power cut. Some file systems cannot; then it is there at least.
  const Fd directory(::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory) (void)::fsync(directory.get());
}

}  // namespace crosvm
