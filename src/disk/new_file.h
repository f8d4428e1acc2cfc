#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "disk/image_file.h"

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
        fd_(std::move(other.fd_)),
        state_(other.state_) {}
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile();

  const Fd& fd() const { return fd_; }
  const std::string& path() const { return path_; }

  /// Gives it its name, once all of it is on stable storage: one that nothing has, or that of
  /// `old` in place of it. Errors: file_exists when something else has the name, which stays; the
  /// errno of fsync, linkat or rename.
  Result<void> place(const std::optional<FileIdentity>& old);
  /// After `place`: as if it had not been. Where the file system cannot exchange two files, the old
  /// one is gone.
  void withdraw();
  /// After `place`: lets go of the old one, and keeps the name over a power cut.
  void settle();

 private:
  enum class State : uint8_t { kMade, kFirst, kExchanged, kRenamed };
  NewFile(std::string path, std::string temporary, Fd fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(std::move(fd)) {}

  Result<void> link_aside();
  Result<void> place_first();
  Result<void> place_over(const FileIdentity& old);
  bool exchange();
  Error errno_of_making() const;
  Error came_meanwhile() const;
  void remove_temporary();

  std::string path_;
  std::string temporary_;  // of the file, or of the old one; or empty: nothing to remove
  Fd fd_;
  State state_ = State::kMade;
};

}  // namespace crosvm
