#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace crosvm {

/// XXH64 of `bytes` with seed 0 (xxHash specification 0.2): the checksum of the zstd formats, which
/// keep its low 32 bits.
uint64_t xxh64(std::span<const std::byte> bytes);

}  // namespace crosvm
