#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/fd.h"
#include "disk/tools/image_target.h"

namespace crosvm {

/// What a disk that starts like an image of another format becomes: it would be opened as such,
/// with the files that it names, and a guest may have made it so.
enum class RawStart : uint8_t { kRefused, kWarnedOf };

/// A raw image of `size` bytes in `file`, which is empty: what is zero stays a hole. Errors: the
/// errno of ftruncate; when it is written, invalid_argument for a start that is refused.
Result<std::unique_ptr<ImageTarget>> make_raw_target(const Fd& file, uint64_t size, RawStart start,
                                                     const std::string& object);

/// Writes all of `bytes` at an offset. Errors: the errno of pwrite.
Result<void> write_at(const Fd& file, uint64_t offset, std::span<const std::byte> bytes,
                      const std::string& object);

}  // namespace crosvm
