#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "memory/guest_memory.h"

namespace crosvm {

/// Puts the parts of `buffers` that hold the bytes [offset, offset + length) of them all into `to`,
/// which loses what it held. They must hold that many.
void slice_buffers(std::span<const GuestSlice> buffers, uint64_t offset, uint64_t length,
                   std::vector<GuestSlice>& to);

/// Copies `from` to the bytes from `offset` on of all `buffers`, which must hold that many.
void copy_to_buffers(std::span<const GuestSlice> buffers, uint64_t offset,
                     std::span<const std::byte> from);

/// Fills the bytes [offset, offset + length) of all `buffers` with `pattern`, little endian, over
/// and over; `phase` is the number of bytes of it that come before the first one.
void fill_buffers(std::span<const GuestSlice> buffers, uint64_t offset, uint64_t length,
                  uint32_t pattern, uint64_t phase);

}  // namespace crosvm
