#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace crosvm {

/// An image that is being made, from its start to its end. Offsets and lengths are multiples of
/// `granule`, but for the end of the disk.
class ImageTarget {
 public:
  virtual ~ImageTarget() = default;

  /// Bytes: less is not told apart.
  virtual uint64_t granule() const = 0;
  /// Whether `leave_out` is possible: there is a backing file.
  virtual bool has_backing() const { return false; }

  // What comes next, ascending and without gaps. Errors: those of writing the file.
  virtual Result<void> write(uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual Result<void> write_zeroes(uint64_t offset, uint64_t length) = 0;
  /// The bytes stay those of the backing file.
  virtual Result<void> leave_out(uint64_t offset, uint64_t length) {
    return write_zeroes(offset, length);
  }
  /// After the last byte: the image is whole, but perhaps not on stable storage.
  virtual Result<void> finish() = 0;
};

}  // namespace crosvm
