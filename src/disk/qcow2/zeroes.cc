#include "disk/qcow2/zeroes.h"

#include <algorithm>
#include <array>

namespace crosvm {
namespace {

constexpr size_t kBytes = 64 << 10;

/// Only read; aligned for direct I/O.
alignas(4096) constinit std::array<std::byte, kBytes> g_zeroes = {};

}  // namespace

void append_zeroes(std::vector<GuestSlice>& buffers, uint64_t length) {
  while (length > 0) {
    const size_t piece = std::min<uint64_t>(length, kBytes);
    buffers.push_back(GuestSlice::over(std::span(g_zeroes).first(piece)));
    length -= piece;
  }
}

void fill_with_zeroes(std::span<const GuestSlice> buffers) {
  for (const GuestSlice& buffer : buffers) {
    for (size_t at = 0; at < buffer.size(); at += kBytes) {
      const size_t piece = std::min(buffer.size() - at, kBytes);
      (void)buffer.write_bytes(at, std::span(g_zeroes).first(piece));
    }
  }
}

}  // namespace crosvm
