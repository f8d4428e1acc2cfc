#pragma once

#include <memory>
#include <string>

#include "base/fd.h"
#include "disk/tools/image_target.h"

namespace crosvm {

/// An Android sparse image of a disk of `size` bytes in `file`, which is empty. Errors:
/// invalid_argument for a size that the format cannot have.
Result<std::unique_ptr<ImageTarget>> make_sparse_target(const Fd& file, uint64_t size,
                                                        const std::string& object);

}  // namespace crosvm
