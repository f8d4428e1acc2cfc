#include "disk/tools/sparse_target.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/format.h"
#include "disk/android_sparse/sparse_format.h"
#include "disk/tools/raw_target.h"

namespace crosvm {
namespace {

using android_sparse::ChunkHeader;
using android_sparse::ChunkType;
using android_sparse::kChunkHeaderBytes;
using android_sparse::kHeaderBytes;

constexpr uint32_t kBestBlock = 4096;
constexpr uint64_t kMostRawBytes = 64 << 20;  // of one chunk

/// Zeroes are a fill, not left open: what flashes such an image may leave what is open as it was.
class SparseTarget : public ImageTarget {
 public:
  SparseTarget(const Fd& file, const std::string& object, uint32_t block, uint32_t blocks)
      : file_(file), object_(object), block_(block), blocks_(blocks) {}

  uint64_t granule() const override { return block_; }
  Result<void> write(uint64_t offset, std::span<const std::byte> bytes) override;
  Result<void> write_zeroes(uint64_t, uint64_t length) override { return fill(0, length); }
  Result<void> finish() override;

 private:
  struct Chunk {
    ChunkType type = ChunkType::kRaw;
    uint64_t bytes = 0;  // of the disk
    uint32_t value = 0;  // of a fill
  };
  Result<void> fill(uint32_t value, uint64_t length);
  Result<void> append_raw(std::span<const std::byte> bytes);
  Result<void> end_chunk();

  const Fd& file_;
  const std::string object_;
  const uint32_t block_;   // bytes
  const uint32_t blocks_;  // of the disk
  uint32_t chunks_ = 0;    // that are complete
  uint64_t chunk_at_ = kHeaderBytes;
  Chunk chunk_;  // being written; of no bytes: none
};

Result<void> SparseTarget::fill(uint32_t value, uint64_t length) {
  if (chunk_.type != ChunkType::kFill || chunk_.value != value) TRY(end_chunk());
  chunk_.type = ChunkType::kFill;
  chunk_.value = value;
  chunk_.bytes += length;
  return {};
}

Result<void> SparseTarget::append_raw(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (chunk_.type != ChunkType::kRaw || chunk_.bytes == kMostRawBytes) TRY(end_chunk());
    chunk_.type = ChunkType::kRaw;
    const auto part = bytes.first(std::min<uint64_t>(bytes.size(), kMostRawBytes - chunk_.bytes));
    TRY(write_at(file_, chunk_at_ + kChunkHeaderBytes + chunk_.bytes, part, object_));
    chunk_.bytes += part.size();
    bytes = bytes.subspan(part.size());
  }
  return {};
}

Result<void> SparseTarget::write(uint64_t, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    // Up to the next block that repeats four bytes.
    size_t raw = 0;
    while (raw < bytes.size() &&
           std::memcmp(bytes.data() + raw, bytes.data() + raw + 4, block_ - 4) != 0) {
      raw += block_;
    }
    TRY(append_raw(bytes.first(raw)));
    bytes = bytes.subspan(raw);
    if (bytes.empty()) break;
    uint32_t value = 0;
    std::memcpy(&value, bytes.data(), sizeof(value));
    TRY(fill(value, block_));
    bytes = bytes.subspan(block_);
  }
  return {};
}

/// Its header comes last, when its length is known.
Result<void> SparseTarget::end_chunk() {
  if (chunk_.bytes == 0) return {};
  const bool is_raw = chunk_.type == ChunkType::kRaw;
  const uint64_t body = is_raw ? chunk_.bytes : sizeof(uint32_t);
  const ChunkHeader header{.type = chunk_.type,
                           .reserved = 0,
                           .blocks = static_cast<uint32_t>(chunk_.bytes / block_),
                           .file_bytes = static_cast<uint32_t>(kChunkHeaderBytes + body)};
  TRY(write_at(file_, chunk_at_, std::as_bytes(std::span(&header, 1)), object_));
  if (!is_raw) {
    TRY(write_at(file_, chunk_at_ + kChunkHeaderBytes, std::as_bytes(std::span(&chunk_.value, 1)),
                 object_));
  }
  chunk_at_ += kChunkHeaderBytes + body;
  ++chunks_;
  chunk_ = {};
  return {};
}

Result<void> SparseTarget::finish() {
  TRY(end_chunk());
  std::array<std::byte, kHeaderBytes> header{};
  const auto put = [&](uint64_t at, auto value) {
    std::memcpy(&header[at], &value, sizeof(value));
  };
  put(0, android_sparse::kMagic);
  put(android_sparse::kMajorAt, android_sparse::kMajor);
  put(android_sparse::kHeaderBytesAt, kHeaderBytes);
  put(android_sparse::kChunkHeaderBytesAt, kChunkHeaderBytes);
  put(android_sparse::kBlockBytesAt, block_);
  put(android_sparse::kBlocksAt, blocks_);
  put(android_sparse::kChunksAt, chunks_);
  return write_at(file_, 0, header, object_);
}

}  // namespace

Result<std::unique_ptr<ImageTarget>> make_sparse_target(const Fd& file, uint64_t size,
                                                        const std::string& object) {
  uint32_t block = kBestBlock;
  while (block > 4 && size % block != 0) block /= 2;
  if (size % block != 0 || size / block > UINT32_MAX) {
    return fail(Error::invalid(
        format_text("{}: a disk of {} bytes cannot be an Android sparse image, which has up to "
                    "4294967295 blocks of 4 to 4096 bytes; choose another --format",
                    object, size)));
  }
  return std::make_unique<SparseTarget>(file, object, block, static_cast<uint32_t>(size / block));
}

}  // namespace crosvm
