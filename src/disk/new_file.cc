#include "disk/new_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <filesystem>

#include "base/format.h"

namespace crosvm {

Result<NewFile> NewFile::create(std::string path) {
  for (;;) {
    uint32_t number = 0;
    if (::getrandom(&number, sizeof(number), 0) != sizeof(number)) {
      return fail(Error::from_errno("making", path));
    }
    std::string temporary = format_text("{}.new-{:08x}", path, number);
    Fd fd(::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (fd) return NewFile(std::move(path), std::move(temporary), std::move(fd));
    if (errno != EEXIST) return fail(Error::from_errno("making", path));
  }
}

NewFile::~NewFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

Result<void> NewFile::commit() {
  if (::fsync(fd_.get()) != 0) return fail(Error::from_errno("writing", path_));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return fail(Error::from_errno("making", path_));
  }
  temporary_.clear();
  // The name, too, is to survive a power cut. Some file systems cannot; then it is there at least.
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  const Fd directory(
      ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory) (void)::fsync(directory.get());
  return {};
}

Result<void> write_new_file(const std::string& path, std::string_view bytes) {
  NewFile file = TRY(NewFile::create(path));
  TRY(write_full(file.fd(), std::as_bytes(std::span(bytes)), path));
  return file.commit();
}

}  // namespace crosvm
