#pragma once

#include "base/result.h"
#include "disk/tools/image_target.h"
#include "disk/tools/tool_image.h"
#include "disk/tools/tool_progress.h"

namespace crosvm {

/// Puts the bytes of a disk into a new image and finishes that. What reads as zeroes is told to be,
/// whatever kept it; with a backing file of the target, what is not in `image` itself is left out.
/// Errors: the errno of a read that failed, naming `object` and the place; those of the target;
/// interrupted.
Result<void> copy_image(ToolImage& image, const std::string& object, ImageTarget& target,
                        ToolProgress& progress);

/// Reads all of it and looks at nothing. Errors: as above.
Result<void> read_through(ToolImage& image, const std::string& object, ToolProgress& progress);

}  // namespace crosvm
