#pragma once

#include <memory>
#include <string>

#include "base/fd.h"
#include "disk/tools/image_target.h"

namespace crosvm {

/// A raw image of `size` bytes in `file`, which is empty: what is zero stays a hole. Errors: the
/// errno of ftruncate.
Result<std::unique_ptr<ImageTarget>> make_raw_target(const Fd& file, uint64_t size,
                                                     const std::string& object);

/// Writes all of `bytes` at an offset. Errors: the errno of pwrite.
Result<void> write_at(const Fd& file, uint64_t offset, std::span<const std::byte> bytes,
                      const std::string& object);

}  // namespace crosvm
