#include "disk/android_sparse/sparse_map.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>

#include "base/format.h"
#include "disk/android_sparse/sparse_format.h"

namespace crosvm {

using namespace android_sparse;

/// From chunk to chunk.
class SparseMap::Walk {
 public:
  explicit Walk(ImageReader& image) : image_(image) {}

  Result<SparseMap> run() {
    TRY(read_header());
    for (uint32_t i = 0; i < chunks_; ++i) TRY(read_chunk(i));
    if (blocks_made_ != blocks_) {
      return broken(
          format_text("its chunks make {} blocks, its header says {}", blocks_made_, blocks_));
    }
    map_.entries_.shrink_to_fit();
    return std::move(map_);
  }

 private:
  std::unexpected<Error> broken(const std::string& what) const {
    return fail(Error::invalid(
        format_text("{}: {}; the Android sparse image is damaged: make it again with img2simg",
                    image_.object(), what)));
  }
  std::unexpected<Error> unsupported(const std::string& what) const {
    return fail(Error(std::errc::not_supported,
                      format_text("{}: {}; unpack the Android sparse image with simg2img",
                                  image_.object(), what)));
  }

  Result<void> read_header() {
    if (TRY(image_.read_number<uint32_t>(0)) != kMagic) return broken("it has another magic");
    const auto major = TRY(image_.read_number<uint16_t>(kMajorAt));
    if (major != kMajor) return unsupported(format_text("it has version {}, not 1", major));
    next_ = TRY(image_.read_number<uint16_t>(kHeaderBytesAt));
    if (next_ < kHeaderBytes) return broken(format_text("its header has {} bytes", next_));
    const auto chunk_header = TRY(image_.read_number<uint16_t>(kChunkHeaderBytesAt));
    if (chunk_header != kChunkHeaderBytes) {
      return unsupported(format_text("its chunk headers have {} bytes, not 12", chunk_header));
    }
    block_ = TRY(image_.read_number<uint32_t>(kBlockBytesAt));
    if (block_ == 0 || block_ % 4 != 0) {
      return broken(format_text("its blocks have {} bytes, which is no multiple of 4", block_));
    }
    blocks_ = TRY(image_.read_number<uint32_t>(kBlocksAt));
    chunks_ = TRY(image_.read_number<uint32_t>(kChunksAt));
    if (blocks_ > INT64_MAX / block_) {
      return broken(format_text("{} blocks of {} bytes are too much", blocks_, block_));
    }
    map_.size_ = uint64_t{blocks_} * block_;
    if (chunks_ > kMostChunks) return unsupported(format_text("it has {} chunks", chunks_));
    return {};
  }

  Result<void> read_chunk(uint32_t number) {
    ChunkHeader header;
    TRY(image_.read(next_, std::as_writable_bytes(std::span(&header, 1))));
    const uint64_t body = next_ + kChunkHeaderBytes;
    const uint64_t length = uint64_t{header.blocks} * block_;
    if (header.blocks > blocks_ - blocks_made_) {
      return broken(format_text("chunk {} reaches past its {} blocks", number, blocks_));
    }
    uint64_t body_bytes = 0;
    switch (header.type) {
      case ChunkType::kRaw:
        body_bytes = length;
        break;
      case ChunkType::kFill:
        body_bytes = sizeof(uint32_t);
        break;
      case ChunkType::kCrc32:
        body_bytes = sizeof(uint32_t);
        if (header.blocks != 0) return broken(format_text("checksum chunk {} has blocks", number));
        break;
      case ChunkType::kDontCare:
        break;
      default:
        return unsupported(format_text("chunk {} is of the unknown type {:#x}", number,
                                       static_cast<uint16_t>(header.type)));
    }
    if (header.file_bytes != kChunkHeaderBytes + body_bytes) {
      return broken(format_text("chunk {} says that it takes {} bytes of the file, not {}", number,
                                header.file_bytes, kChunkHeaderBytes + body_bytes));
    }
    next_ += header.file_bytes;
    if (next_ > image_.size()) {
      return broken(
          format_text("chunk {} ends at byte {} of a file of {}", number, next_, image_.size()));
    }
    if (length == 0) return {};
    const bool is_fill = header.type == ChunkType::kFill;
    add(header.type == ChunkType::kRaw, is_fill ? TRY(image_.read_number<uint32_t>(body))
                                        : header.type == ChunkType::kRaw ? body
                                                                         : 0);
    blocks_made_ += header.blocks;
    return {};
  }

  void add(bool is_stored, uint64_t value) {
    std::vector<Entry>& entries = map_.entries_;
    const bool goes_on = !is_stored && !entries.empty() && entries.back().is_stored == 0 &&
                         entries.back().value == value;
    if (goes_on) return;
    entries.push_back(
        {.start = uint64_t{blocks_made_} * block_, .is_stored = is_stored, .value = value});
  }

  ImageReader& image_;
  SparseMap map_;
  uint64_t next_ = 0;  // chunk, in the file
  uint32_t block_ = 0;
  uint32_t blocks_ = 0;
  uint32_t blocks_made_ = 0;
  uint32_t chunks_ = 0;
};

Result<SparseMap> SparseMap::read(ImageReader& image) { return Walk(image).run(); }

SparseMap::Run SparseMap::at(uint64_t offset) const {
  const auto next = std::ranges::upper_bound(
      entries_, offset, {}, [](const Entry& entry) { return uint64_t{entry.start}; });
  const Entry& entry = *std::prev(next);
  const uint64_t end = next == entries_.end() ? size_ : next->start;
  const uint64_t inside = offset - entry.start;
  if (entry.is_stored != 0) {
    return {.is_stored = true, .file_offset = entry.value + inside, .length = end - offset};
  }
  return {.pattern = static_cast<uint32_t>(entry.value), .length = end - offset};
}

}  // namespace crosvm
