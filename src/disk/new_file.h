#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// A file that gets its name when it is complete: until then it lies beside that under another
/// name, and is removed if it never does.
class NewFile {
 public:
  /// Errors: the errno of open, naming `path`.
  static Result<NewFile> create(std::string path);
  NewFile(NewFile&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::exchange(other.temporary_, {})),
        fd_(std::move(other.fd_)) {}
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();

  const Fd& fd() const { return fd_; }
  const std::string& path() const { return path_; }

  /// Gives it its name, in place of what had it, once all of it is on stable storage. Errors: the
  /// errno of fsync or rename.
  Result<void> commit();

 private:
  NewFile(std::string path, std::string temporary, Fd fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(std::move(fd)) {}

  std::string path_;
  std::string temporary_;  // or empty: nothing to remove
  Fd fd_;
};

/// A whole file of these bytes.
Result<void> write_new_file(const std::string& path, std::string_view bytes);

}  // namespace crosvm
