#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace crosvm {

struct CompactPlan {
  std::string path;
  std::vector<std::string> allowed = {};  ///< as allow-backing= of a disk
  bool show_progress = false;
};

/// What an image took on the host, in bytes.
struct CompactOutcome {
  uint64_t before = 0;
  uint64_t after = 0;
};

/// Makes an image take no more space on the host than what it holds needs. A qcow2 image is written
/// anew and replaced when that is complete: its options and its backing file stay. In a raw one
/// what is zero becomes holes. Errors: not_supported for an image with internal snapshots, dirty
/// bitmaps, a data file or damage, and for other formats; those of opening, reading and writing;
/// interrupted.
Result<CompactOutcome> compact_image(const CompactPlan& plan);

}  // namespace crosvm
