#include "disk/tools/target_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "disk/image_file.h"

namespace crosvm {
namespace {

struct Free {
  void operator()(char* text) const { std::free(text); }
};

/// The new file is as readable for others as the old one was.
Result<void> take_after(const struct stat& old, const NewFile& file) {
  (void)!::fchown(file.fd().get(), old.st_uid, old.st_gid);  // only root may give files away
  if (::fchmod(file.fd().get(), old.st_mode & 07777) != 0) {
    return fail(Error::from_errno("making", file.path()));
  }
  return {};
}

}  // namespace

Result<TargetFile> TargetFile::create(const std::string& path) {
  const std::string real = real_name(path);
  struct stat status{};
  if (::stat(real.c_str(), &status) != 0) {
    if (errno == ELOOP) {
      return fail(Error(std::errc::too_many_symbolic_link_levels,
                        path + " is a symbolic link that leads in a circle; remove it"));
    }
    return TargetFile(Fd(), TRY(NewFile::create(real)), std::nullopt);
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(Error::invalid(path + " is there and not a file; give the name of a file"));
  }
  Fd old = TRY(open_image_file(real, {.for_tool = true}));
  if (::fstat(old.get(), &status) != 0) return fail(Error::from_errno("looking at", path));
  return over(std::move(old), status, real);
}

Result<TargetFile> TargetFile::replace(const Fd& old, const std::string& path) {
  struct stat status{};
  if (::fstat(old.get(), &status) != 0) return fail(Error::from_errno("looking at", path));
  if (!S_ISREG(status.st_mode)) {
    return fail(Error::invalid(path + " is no file that could be replaced; convert it instead"));
  }
  return over(Fd(), status, real_name(path));
}

Result<TargetFile> TargetFile::over(Fd held, const struct stat& old, const std::string& real) {
  NewFile file = TRY(NewFile::create(real));
  TRY(take_after(old, file));
  return TargetFile(std::move(held), std::move(file), FileIdentity(old.st_dev, old.st_ino));
}

Result<void> TargetFile::commit() {
  TRY(place());
  settle();
  return {};
}

bool is_same_file(const std::string& one, const std::string& other) {
  struct stat first{};
  struct stat second{};
  return ::stat(one.c_str(), &first) == 0 && ::stat(other.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

std::string real_name(const std::string& path) {
  constexpr int kMostLinks = 40;  // as the kernel
  std::filesystem::path name = path;
  for (int links = 0; links < kMostLinks; ++links) {
    const std::unique_ptr<char, Free> real(::realpath(name.c_str(), nullptr));
    if (real) return real.get();
    std::error_code error;
    const std::filesystem::path next = std::filesystem::read_symlink(name, error);
    if (error) return name;
    name = name.parent_path() / next;
  }
  return name;
}

}  // namespace crosvm
