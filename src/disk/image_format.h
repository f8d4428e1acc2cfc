#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// What an image file is, by its first bytes; its name says nothing (devices.md 4.2).
enum class ImageFormat : uint8_t { kRaw, kQcow2, kZstd, kAndroidSparse, kComposite };

/// Looks at the start of `image`, which may be open for direct I/O. `object` names the file in
/// errors: the errno of pread.
Result<ImageFormat> detect_image_format(const Fd& image, const std::string& object);

/// Refuses every format but raw by name: its bytes must not be taken for those of the disk. Errors:
/// not_supported, else those of `detect_image_format`.
Result<void> require_raw_format(const Fd& image, const std::string& object);

}  // namespace crosvm
