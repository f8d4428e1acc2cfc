#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "disk/image_reader.h"

namespace crosvm {

/// Takes decoded bytes, in order.
using ZstdSink = std::function<Result<void>(std::span<const std::byte>)>;

/// Decodes the frames in [offset, offset + length) of a file from start to end, in little memory
/// however large they are. What a disk cannot read for the size of its frames is converted with
/// this. Errors: invalid_argument for what is no zstd or damaged, not_supported for a window of
/// more than 128 MiB, else those of reading and of `sink`.
Result<void> decode_zstd(ImageReader& image, uint64_t offset, uint64_t length,
                         const ZstdSink& sink);

/// Says that frames are too large for random access, and what helps.
Error zstd_frame_too_large(const std::string& object);

}  // namespace crosvm
