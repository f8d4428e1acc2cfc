#pragma once

#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "disk/tools/image_target.h"
#include "disk/tools/tool_progress.h"

namespace crosvm {

/// Reads a zstd file from start to end: what a disk of it cannot do for the size or number of its
/// frames. Memory is bounded by zstd's window, 128 MiB.
class ZstdStream {
 public:
  /// `file` outlives it; `object` names it in errors. Errors: those of ZstdWalk::measure_all;
  /// interrupted.
  static Result<ZstdStream> open(const Fd& file, std::string object, ToolProgress& progress);

  uint64_t size() const { return size_; }  ///< of the disk, in bytes

  /// Puts all of it into the target and finishes that. Errors: invalid_argument for a damaged file,
  /// those of reading and of the target; interrupted.
  Result<void> copy_to(ImageTarget& target);

 private:
  ZstdStream(const Fd& file, std::string object, uint64_t size, ToolProgress& progress)
      : file_(&file), object_(std::move(object)), size_(size), progress_(&progress) {}

  const Fd* file_;
  std::string object_;
  uint64_t size_;
  ToolProgress* progress_;
};

}  // namespace crosvm
