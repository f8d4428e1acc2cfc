#pragma once

#include <cstddef>
#include <cstdint>

/// The format of Android sparse images (devices.md 4.2). All numbers are little endian.
namespace crosvm::android_sparse {

constexpr uint32_t kMagic = 0xED26FF3A;
constexpr uint16_t kMajor = 1;

// Where the fields of the header are, in bytes; before them the magic.
constexpr uint64_t kMajorAt = 4;        // 16 bits, then the minor version, which does not matter
constexpr uint64_t kHeaderBytesAt = 8;  // 16 bits
constexpr uint64_t kChunkHeaderBytesAt = 10;  // 16 bits
constexpr uint64_t kBlockBytesAt = 12;
constexpr uint64_t kBlocksAt = 16;
constexpr uint64_t kChunksAt = 20;  // then a checksum, which nobody writes
constexpr uint16_t kHeaderBytes = 28;

constexpr uint16_t kChunkHeaderBytes = 12;

enum class ChunkType : uint16_t {
  kRaw = 0xCAC1,       ///< followed by its bytes
  kFill = 0xCAC2,      ///< followed by four bytes that are repeated
  kDontCare = 0xCAC3,  ///< nothing: read as zeroes
  kCrc32 = 0xCAC4,     ///< of all before, four bytes; makes no blocks
};

/// What every chunk begins with.
struct ChunkHeader {
  ChunkType type;
  uint16_t reserved;
  uint32_t blocks;      ///< that it makes
  uint32_t file_bytes;  ///< that it takes, with this header
};
static_assert(sizeof(ChunkHeader) == kChunkHeaderBytes);

}  // namespace crosvm::android_sparse
