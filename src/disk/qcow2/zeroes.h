#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memory/guest_memory.h"

namespace crosvm {

/// Adds `length` bytes of zeroes to what is to be written; they are the same few again and again.
void append_zeroes(std::vector<GuestSlice>& buffers, uint64_t length);
/// Makes all of `buffers` zero.
void fill_with_zeroes(std::span<const GuestSlice> buffers);

}  // namespace crosvm
