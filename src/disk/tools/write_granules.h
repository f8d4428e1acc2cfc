#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "disk/tools/image_target.h"

namespace crosvm {

/// Gives `bytes` to the target, its granules of zeroes as zeroes. Errors: those of the target.
Result<void> write_granules(ImageTarget& target, uint64_t offset, std::span<const std::byte> bytes);

}  // namespace crosvm
