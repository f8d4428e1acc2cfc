#pragma once

#include <memory>
#include <string>

#include "base/fd.h"
#include "disk/tools/image_target.h"

namespace crosvm {

/// A seekable zstd file of a disk of `size` bytes, in `file`, which is empty. Errors: those of
/// SeekableZstdWriter::create; file_too_large from 128 TiB on.
Result<std::unique_ptr<ImageTarget>> make_zstd_target(const Fd& file, uint64_t size,
                                                      const std::string& object);

}  // namespace crosvm
