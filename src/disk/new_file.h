#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// A file that gets its name when it is complete. Until then it has none, so that nothing is left
/// however its process ends; or, where the file system or the lack of /proc wants one, it lies
/// beside its place under another name, and is removed if it never gets there.
class NewFile {
 public:
  enum class Until : uint8_t { kNoName, kOtherName };
  /// With kOtherName never without a name. Errors: the errno of open, naming `path`.
  static Result<NewFile> create(std::string path, Until until = Until::kNoName);
  NewFile(NewFile&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::exchange(other.temporary_, {})),
        fd_(std::move(other.fd_)) {}
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();

  const Fd& fd() const { return fd_; }
  const std::string& path() const { return path_; }

  /// Gives it its name, in place of what had it, once all of it is on stable storage. Errors: the
  /// errno of fsync, linkat or rename.
  Result<void> commit();

 private:
  NewFile(std::string path, std::string temporary, Fd fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(std::move(fd)) {}

  Result<void> link();

  std::string path_;
  std::string temporary_;  // or empty: nothing to remove
  Fd fd_;
};

}  // namespace crosvm
