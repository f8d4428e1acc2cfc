#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "disk/android_sparse/sparse_format.h"

namespace crosvm::test {

inline std::string little_endian(uint64_t value, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i)));
  return text;
}

/// Builds an Android sparse image as its description says, with whatever wrong numbers.
struct SparseImageMaker {
  uint32_t block = 4096;
  uint16_t major = 1;
  uint16_t header_bytes = android_sparse::kHeaderBytes;
  uint16_t chunk_header_bytes = android_sparse::kChunkHeaderBytes;
  uint32_t blocks = 0;
  uint32_t chunks = 0;
  std::string body = {};

  void add(android_sparse::ChunkType type, uint32_t its_blocks, std::string_view bytes,
           int64_t off = 0) {
    ++chunks;
    blocks += its_blocks;
    body += little_endian(static_cast<uint16_t>(type), 4) + little_endian(its_blocks, 4) +
            little_endian(static_cast<uint64_t>(12 + static_cast<int64_t>(bytes.size()) + off), 4);
    body += bytes;
  }
  std::string image() const {
    return little_endian(android_sparse::kMagic, 4) + little_endian(major, 2) +
           little_endian(7, 2) + little_endian(header_bytes, 2) +
           little_endian(chunk_header_bytes, 2) + little_endian(block, 4) +
           little_endian(blocks, 4) + little_endian(chunks, 4) + little_endian(0, 4) +
           std::string(header_bytes > 28 ? header_bytes - 28 : 0, 'h') + body;
  }
};

}  // namespace crosvm::test
