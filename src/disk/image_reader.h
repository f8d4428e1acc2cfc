#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// Reads the tables of an image while it is being opened, in blocking calls: through a small
/// window, so that many small reads in ascending order cost few calls, and so that the descriptor
/// may be open for direct I/O.
class ImageReader {
 public:
  /// `image` outlives it. `object` names the file in errors: those of `file_size`,
  /// not_enough_memory.
  static Result<ImageReader> create(const Fd& image, std::string object);

  uint64_t size() const { return size_; }  ///< bytes of the file
  const std::string& object() const { return object_; }

  /// Fills `to`. Errors: invalid_argument when the file ends before, else the errno of pread.
  Result<void> read(uint64_t offset, std::span<std::byte> to);

  /// A little endian number.
  template <class T>
  Result<T> read_number(uint64_t offset) {
    std::byte bytes[sizeof(T)];
    TRY(read(offset, bytes));
    T value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) {
      value = static_cast<T>(value | static_cast<T>(static_cast<T>(bytes[i]) << (8 * i)));
    }
    return value;
  }

 private:
  static constexpr size_t kAlignment = 4096;  ///< enough for direct I/O everywhere
  static constexpr size_t kWindow = 64 << 10;
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  ImageReader(const Fd& image, std::string object, uint64_t size,
              std::unique_ptr<std::byte, Free> window)
      : image_(&image), object_(std::move(object)), size_(size), window_(std::move(window)) {}
  Result<void> fill_window(uint64_t offset);

  const Fd* image_;
  std::string object_;
  uint64_t size_;
  std::unique_ptr<std::byte, Free> window_;
  uint64_t window_start_ = 0;
  size_t window_length_ = 0;
};

}  // namespace crosvm
