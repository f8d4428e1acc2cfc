#include "disk/image_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/format.h"

namespace crosvm {

Result<ImageReader> ImageReader::create(const Fd& image, std::string object) {
  const uint64_t size = TRY(file_size(image, object));
  std::unique_ptr<std::byte, Free> window(
      static_cast<std::byte*>(std::aligned_alloc(kAlignment, kWindow)));
  if (!window) return fail(Error::from_errno("opening", object, ENOMEM));
  return ImageReader(image, std::move(object), size, std::move(window));
}

Result<void> ImageReader::fill_window(uint64_t offset) {
  const uint64_t start = offset / kAlignment * kAlignment;
  // Who jumps about gets a little, who goes on gets much.
  const uint64_t reached = window_start_ + window_length_;
  const bool goes_on = start <= reached && reached <= start + kAlignment;
  window_length_ = 0;
  window_start_ = start;
  window_length_ = TRY(read_full_at(
      *image_, start, std::span(window_.get(), goes_on ? kWindow : kAlignment), object_));
  return {};
}

Result<void> ImageReader::read(uint64_t offset, std::span<std::byte> to) {
  while (!to.empty()) {
    if (offset < window_start_ || offset - window_start_ >= window_length_) {
      if (offset < size_) TRY(fill_window(offset));
      if (offset >= size_ || offset - window_start_ >= window_length_) {
        return fail(Error::invalid(
            format_text("{}: the file ends at byte {}, before what its tables name; it is not "
                        "whole: copy it again",
                        object_, size_)));
      }
    }
    const size_t from = offset - window_start_;
    const size_t taken = std::min(to.size(), window_length_ - from);
    std::memcpy(to.data(), window_.get() + from, taken);
    to = to.subspan(taken);
    offset += taken;
  }
  return {};
}

}  // namespace crosvm
