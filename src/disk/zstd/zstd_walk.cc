#include "disk/zstd/zstd_walk.h"

#include <algorithm>

#include "base/format.h"
#include "disk/zstd/zstd_format.h"
#include "disk/zstd/zstd_stream.h"

namespace crosvm {

using namespace zstd;

namespace {

constexpr uint64_t kBlocksAStep = 1024;

}  // namespace

std::unexpected<Error> ZstdWalk::broken(const std::string& what) const {
  return fail(Error::invalid(
      format_text("{}: at byte {} of the zstd file {}; it is damaged: test it with `zstd -t`",
                  image_.object(), next_, what)));
}

Result<ZstdIndex> ZstdWalk::run() {
  TRY(walk());
  return std::move(index_);
}

Result<uint64_t> ZstdWalk::measure_all(Step step) {
  step_ = std::move(step);
  TRY(walk());
  return total_;
}

Result<void> ZstdWalk::walk() {
  while (next_ < image_.size()) {
    if (image_.size() - next_ < sizeof(uint32_t)) return broken("is no whole frame");
    const auto magic = TRY(image_.read_number<uint32_t>(next_));
    if (magic == kMagic) {
      TRY(walk_frame());
    } else if ((magic & kSkippableMask) == kSkippableMagic) {
      TRY(skip_frame());
    } else {
      return broken("no frame begins");
    }
  }
  return {};
}

Result<void> ZstdWalk::skip_frame() {
  const uint64_t bytes =
      kSkippableHeader + TRY(image_.read_number<uint32_t>(next_ + sizeof(uint32_t)));
  if (bytes > image_.size() - next_) return broken("is a frame that reaches past its end");
  if (++blocks_ > kMostBlocks && !step_) return broken("there are too many frames");
  next_ += bytes;
  return {};
}

/// RFC 8878, 3.1.1.1.
Result<ZstdWalk::Header> ZstdWalk::read_header() const {
  uint64_t at = next_ + sizeof(uint32_t);
  const auto descriptor = TRY(image_.read_number<uint8_t>(at++));
  const bool single_segment = (descriptor & 0x20) != 0;
  if ((descriptor & 0x08) != 0) return broken("is a frame with a reserved bit");
  if (!single_segment) ++at;  // how large the window is
  const unsigned dictionary_bytes = (1U << (descriptor & 3)) >> 1;
  for (unsigned i = 0; i < dictionary_bytes; ++i) {
    if (TRY(image_.read_number<uint8_t>(at++)) == 0) continue;
    return fail(Error(std::errc::not_supported,
                      format_text("{}: it needs a zstd dictionary; unpack it with `zstd -d -D`",
                                  image_.object())));
  }
  Header header{.has_checksum = (descriptor & 0x04) != 0};
  unsigned size_bytes = 1U << (descriptor >> 6);
  if (size_bytes == 1 && !single_segment) size_bytes = 0;
  header.has_size = size_bytes > 0;
  for (unsigned i = 0; i < size_bytes; ++i) {
    header.size |= uint64_t{TRY(image_.read_number<uint8_t>(at++))} << (8 * i);
  }
  if (size_bytes == 2) header.size += 256;
  header.bytes = at - next_;
  return header;
}

/// Where the blocks end that begin at `at`.
Result<uint64_t> ZstdWalk::walk_blocks(uint64_t at, uint64_t& makes_at_most) {
  for (bool is_last = false; !is_last;) {
    if (++blocks_ > kMostBlocks && !step_) return broken("there are too many blocks");
    if (step_ && blocks_ % kBlocksAStep == 0) TRY(step_(at));
    const uint32_t header = TRY(image_.read_number<uint16_t>(at)) |
                            uint32_t{TRY(image_.read_number<uint8_t>(at + 2))} << 16;
    is_last = (header & 1) != 0;
    const uint32_t type = header >> 1 & 3;
    const uint32_t size = header >> 3;
    if (type == 3 || size > kMostBlock) return broken("is a frame with a block of no known kind");
    const bool is_one_byte = type == 1;  // again and again
    makes_at_most += type == 2 ? kMostBlock : size;
    at += 3 + (is_one_byte ? 1 : size);
    if (at > image_.size()) return broken("is a frame that reaches past its end");
  }
  return at;
}

Result<void> ZstdWalk::walk_frame() {
  Header header = TRY(read_header());
  uint64_t makes_at_most = 0;
  uint64_t end = TRY(walk_blocks(next_ + header.bytes, makes_at_most));
  if (header.has_checksum) end += sizeof(uint32_t);
  if (end > image_.size()) return broken("is a frame that reaches past its end");
  if (!header.has_size) header.size = TRY(measure(end - next_));
  if (header.size > makes_at_most) return broken("is a frame that makes less than it says");
  if (step_) {
    total_ += header.size;
  } else {
    TRY(index_.add(next_, end - next_, header.size, 0, image_.object()));
  }
  next_ = end;
  return {};
}

/// Decodes the next frame to learn its size.
Result<uint64_t> ZstdWalk::measure(uint64_t file_bytes) {
  uint64_t size = 0;
  TRY(decode_zstd(image_, next_, file_bytes, [&](std::span<const std::byte> bytes) -> Result<void> {
    size += bytes.size();
    if (step_) return step_(next_);
    if (measured_ + size > kMostFrame) return fail(zstd_frame_too_large(image_.object()));
    return {};
  }));
  measured_ += size;
  return size;
}

}  // namespace crosvm
