#include "disk/tools/write_granules.h"

#include <algorithm>
#include <cstring>

namespace crosvm {
namespace {

bool is_zero(std::span<const std::byte> bytes) {
  return bytes.empty() || (bytes[0] == std::byte{0} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

Result<void> write_granules(ImageTarget& target, uint64_t offset,
                            std::span<const std::byte> bytes) {
  const uint64_t granule = target.granule();
  while (!bytes.empty()) {
    uint64_t length = std::min<uint64_t>(granule, bytes.size());
    const bool zero = is_zero(bytes.first(length));
    while (length < bytes.size()) {
      const uint64_t more = std::min<uint64_t>(granule, bytes.size() - length);
      if (is_zero(bytes.subspan(length, more)) != zero) break;
      length += more;
    }
    TRY(zero ? target.write_zeroes(offset, length) : target.write(offset, bytes.first(length)));
    bytes = bytes.subspan(length);
    offset += length;
  }
  return {};
}

}  // namespace crosvm
