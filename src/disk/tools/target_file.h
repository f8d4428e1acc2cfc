#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "disk/image_file.h"
#include "disk/new_file.h"

namespace crosvm {

/// A file that a tool makes, perhaps in place of one that is there: that one stays as it is, and
/// locked, until the new one is complete. What has got the name meanwhile, and who may have it in
/// use, is not looked into: it stays, and the new file is given up.
class TargetFile {
 public:
  /// Errors: `path` is there and no file, or in use; those of `NewFile::create`.
  static Result<TargetFile> create(const std::string& path);

  /// In place of `path`, which the caller has open as `old` and locked until this is gone. Errors:
  /// as above.
  static Result<TargetFile> replace(const Fd& old, const std::string& path);

  const Fd& fd() const { return file_.fd(); }
  /// Gives it its name for good. Errors: those of `NewFile::place`.
  Result<void> commit();
  /// The same in two steps, between which `withdraw` leads back to what was there before.
  Result<void> place() { return file_.place(old_identity_); }
  void withdraw() { file_.withdraw(); }
  void settle() { file_.settle(); }

 private:
  TargetFile(Fd old, NewFile file, std::optional<FileIdentity> old_identity)
      : old_(std::move(old)), file_(std::move(file)), old_identity_(old_identity) {}
  static Result<TargetFile> over(Fd held, const struct stat& old, const std::string& real);

  Fd old_;  // locked; or none, or held by the caller
  NewFile file_;
  std::optional<FileIdentity> old_identity_;  // unless nothing had its name
};

/// Whether both name one file.
bool is_same_file(const std::string& one, const std::string& other);

/// `path` without symbolic links; of one that leads to nothing yet, what it leads to.
std::string real_name(const std::string& path);

}  // namespace crosvm
