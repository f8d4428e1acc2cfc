#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "disk/image_reader.h"

namespace crosvm {

/// What lies where in an Android sparse image: read once, when it is opened.
class SparseMap {
 public:
  /// More than any image of 4 KiB blocks and a terabyte has; 16 bytes of memory each.
  static constexpr uint32_t kMostChunks = 1 << 24;

  struct Run {
    bool is_stored = false;  ///< in the file, from `file_offset` on; else a pattern
    uint64_t file_offset = 0;
    uint32_t pattern = 0;  ///< little endian, from a multiple of its size on
    uint64_t length = 0;   ///< bytes, up to the next run
  };

  /// Walks all chunks. Errors: invalid_argument for what the format forbids, not_supported for
  /// another version or too many chunks, else those of reading; all name the image.
  static Result<SparseMap> read(ImageReader& image);

  uint64_t size() const { return size_; }  ///< of the disk, in bytes
  /// What lies at `offset`, which is less than the size. Takes O(log n) steps.
  Run at(uint64_t offset) const;

 private:
  /// 16 bytes for each run, so that many cost little.
  struct Entry {
    uint64_t start : 63;  ///< on the disk, in bytes
    uint64_t is_stored : 1;
    uint64_t value;  ///< offset in the file, or the pattern
  };
  class Walk;

  uint64_t size_ = 0;
  std::vector<Entry> entries_;  // ascending, the first at 0; neighbours with one pattern are one
};

}  // namespace crosvm
