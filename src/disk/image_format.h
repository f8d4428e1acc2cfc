#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// What an image file is, by its first bytes; its name says nothing (devices.md 4.2).
enum class ImageFormat : uint8_t { kRaw, kQcow2, kZstd, kAndroidSparse, kComposite };

/// As many bytes as the longest magic has.
inline constexpr size_t kImageMagicBytes = 15;

/// By the first bytes of a file, of which 4096 count.
ImageFormat image_format_of(std::span<const std::byte> start);

/// "raw", "qcow2", "zstd", "android-sparse", "composite".
std::string_view name_of(ImageFormat format);

/// Looks at the start of `image`, which may be open for direct I/O. `object` names the file in
/// errors: the errno of pread.
Result<ImageFormat> detect_image_format(const Fd& image, const std::string& object);

}  // namespace crosvm
