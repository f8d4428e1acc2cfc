#include "disk/zstd/zstd_index.h"

#include <algorithm>

#include "base/format.h"
#include "disk/zstd/frame_cache.h"
#include "disk/zstd/zstd_format.h"
#include "disk/zstd/zstd_stream.h"
#include "disk/zstd/zstd_walk.h"

namespace crosvm {

using namespace zstd;

namespace {

Error too_many_frames(const std::string& object) {
  return Error(std::errc::not_supported,
               format_text("{0}: it has too many zstd frames for random access (more than {1}, or "
                           "large ones); convert it once with `crosvm disk convert {0} OUT.zst`, "
                           "or unpack it with `zstd -d {0} -o OUT.img`",
                           object, ZstdIndex::kMostFrames));
}

}  // namespace

/// Reads the table of the seekable format.
class ZstdTable {
 public:
  explicit ZstdTable(ImageReader& image) : image_(image) {}

  /// Whether the file ends with one.
  Result<bool> is_there() const {
    if (image_.size() < kSkippableHeader + kSeekFooter) return false;
    return TRY(image_.read_number<uint32_t>(image_.size() - 4)) == kSeekableMagic;
  }

  Result<ZstdIndex> read() {
    const uint64_t footer = image_.size() - kSeekFooter;
    const auto frames = TRY(image_.read_number<uint32_t>(footer));
    const auto descriptor = TRY(image_.read_number<uint8_t>(footer + 4));
    if ((descriptor & kSeekReserved) != 0) {
      return fail(Error(std::errc::not_supported,
                        format_text("{}: its seek table has features ({:#x}) that are not known; "
                                    "unpack it with `zstd -d`",
                                    image_.object(), descriptor)));
    }
    index_.has_checksums_ = (descriptor & kSeekChecksums) != 0;
    const uint64_t entry = kSeekEntry + (index_.has_checksums_ ? kSeekChecksum : 0);
    const uint64_t body = frames * entry + kSeekFooter;
    if (body + kSkippableHeader > image_.size()) return broken("does not fit into the file");
    const uint64_t start = image_.size() - body - kSkippableHeader;
    if (TRY(image_.read_number<uint32_t>(start)) != kSeekTableMagic ||
        TRY(image_.read_number<uint32_t>(start + 4)) != body) {
      return broken("is no frame of its own");
    }
    if (frames > ZstdIndex::kMostFrames) return fail(too_many_frames(image_.object()));
    TRY(read_entries(start + kSkippableHeader, frames, entry, start));
    return std::move(index_);
  }

 private:
  std::unexpected<Error> broken(const std::string& what) const {
    return fail(Error::invalid(format_text(
        "{}: its seek table {}; the zstd file is damaged: copy it again", image_.object(), what)));
  }

  Result<void> read_entries(uint64_t at, uint32_t frames, uint64_t entry, uint64_t end) {
    uint64_t file_offset = 0;
    for (uint32_t i = 0; i < frames; ++i, at += entry) {
      const auto file_bytes = TRY(image_.read_number<uint32_t>(at));
      const auto length = TRY(image_.read_number<uint32_t>(at + 4));
      const uint32_t checksum =
          index_.has_checksums_ ? TRY(image_.read_number<uint32_t>(at + kSeekEntry)) : 0;
      if (file_bytes > end - file_offset) return broken("names frames past the end");
      TRY(index_.add(file_offset, file_bytes, length, checksum, image_.object()));
      file_offset += file_bytes;
    }
    if (file_offset != end) return broken("does not name all frames");
    return {};
  }

  ImageReader& image_;
  ZstdIndex index_;
};

Result<ZstdIndex> ZstdIndex::read(ImageReader& image) {
  ZstdTable table(image);
  ZstdIndex index = TRY(table.is_there()) ? TRY(table.read()) : TRY(ZstdWalk(image).run());
  TRY(index.check_memory(image.object()));
  return index;
}

/// Small frames may be many and large ones few, but not both: memory that a jail does not give
/// would end the process.
Result<void> ZstdIndex::check_memory(const std::string& object) const {
  const uint64_t buffers = std::max(FrameCache::kLeastBytes, 2 * longest_frame_) +
                           std::max(FrameCache::kLeastReadBytes, longest_file_bytes_);
  if (buffers + frames_.size() * sizeof(Frame) <= kMostMemory) return {};
  return fail(too_many_frames(object));
}

Result<void> ZstdIndex::add(uint64_t file_offset, uint64_t file_bytes, uint64_t length,
                            uint32_t checksum, const std::string& object) {
  if (length == 0) return {};
  // A frame may be a little larger than what it makes, not much.
  if (length > kMostFrame || file_bytes > kMostFrame + kMostFrame / 64) {
    return fail(zstd_frame_too_large(object));
  }
  if (frames_.size() == kMostFrames) return fail(too_many_frames(object));
  frames_.push_back({.file_offset = file_offset,
                     .start = size_,
                     .file_bytes = static_cast<uint32_t>(file_bytes),
                     .checksum = checksum});
  size_ += length;
  longest_frame_ = std::max(longest_frame_, length);
  longest_file_bytes_ = std::max(longest_file_bytes_, file_bytes);
  return {};
}

size_t ZstdIndex::find(uint64_t offset) const {
  const auto next = std::ranges::upper_bound(frames_, offset, {}, &Frame::start);
  return static_cast<size_t>(next - frames_.begin()) - 1;
}

}  // namespace crosvm
