#pragma once

#include <string>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "disk/new_file.h"

namespace crosvm {

/// A file that a tool makes, perhaps in place of one that is there: that one stays as it is, and
/// locked, until the new one is complete.
class TargetFile {
 public:
  /// Errors: `path` is there and no file, or in use; those of `NewFile::create`.
  static Result<TargetFile> create(const std::string& path);

  /// In place of `path`, which the caller has open as `old` and locked until this is gone. Errors:
  /// as above.
  static Result<TargetFile> replace(const Fd& old, const std::string& path);

  const Fd& fd() const { return file_.fd(); }
  Result<void> commit() { return file_.commit(); }
  /// After `commit`: removes it again, if nothing had its name before.
  void withdraw();

 private:
  TargetFile(Fd old, NewFile file, bool is_first)
      : old_(std::move(old)), file_(std::move(file)), is_first_(is_first) {}

  Fd old_;  // locked; or none, or held by the caller
  NewFile file_;
  bool is_first_;  // nothing had its name
};

/// Whether both name one file.
bool is_same_file(const std::string& one, const std::string& other);

/// `path` without symbolic links; of one that leads to nothing yet, what it leads to.
std::string real_name(const std::string& path);

}  // namespace crosvm
