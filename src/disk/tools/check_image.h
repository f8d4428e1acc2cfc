#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "disk/image_format.h"

namespace crosvm {

struct CheckPlan {
  std::string path;
  bool repair = false;
  std::vector<std::string> allowed = {};  ///< as allow-backing= of a disk
  bool show_progress = false;
};

/// What is wrong with an image.
struct CheckOutcome {
  ImageFormat format = ImageFormat::kRaw;
  uint64_t errors = 0;                ///< it is damaged
  uint64_t leaks = 0;                 ///< clusters that nothing uses, still
  uint64_t repaired_leaks = 0;        ///< that were there
  std::vector<std::string> messages;  ///< of the first few
  std::string chain_problem = {};     ///< why the files that it names cannot be used; empty: fine
};

/// Looks at all tables of a qcow2 image, and makes it give back what it leaks; the files that it
/// names, and those that they name, are opened as a VM does, but their tables are theirs. Images of
/// other formats are read from start to end, with all that they name; a pattern that an Android
/// sparse image repeats is not read out. Errors: it cannot be opened or read; interrupted.
Result<CheckOutcome> check_image(const CheckPlan& plan);

}  // namespace crosvm
