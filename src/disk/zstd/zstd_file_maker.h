#pragma once

#include <gtest/gtest.h>
#include <zstd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "disk/zstd/xxh64.h"

namespace crosvm::test {

inline std::string number(uint64_t value, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i)));
  return text;
}

inline std::string zstd_frame(std::string_view bytes, bool has_size = true, bool checksum = false) {
  const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(),
                                                                   ZSTD_freeCCtx);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_contentSizeFlag, has_size ? 1 : 0);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, checksum ? 1 : 0);
  std::string frame(ZSTD_compressBound(bytes.size()), '\0');
  const size_t made =
      ZSTD_compress2(context.get(), frame.data(), frame.size(), bytes.data(), bytes.size());
  EXPECT_EQ(ZSTD_isError(made), 0u);
  frame.resize(made);
  return frame;
}

inline std::string skippable_frame(std::string_view bytes) {
  return number(0x184D2A53, 4) + number(bytes.size(), 4) + std::string(bytes);
}

/// Builds a file of the seekable format as its description says.
struct SeekableMaker {
  bool checksums = true;
  std::string frames = {};
  std::string table = {};
  uint32_t count = 0;
  uint8_t descriptor = 0x80;

  void add(std::string_view bytes) { add_frame(zstd_frame(bytes), bytes); }
  void add_frame(std::string_view frame, std::string_view bytes) {
    frames += frame;
    table += number(frame.size(), 4) + number(bytes.size(), 4);
    if (checksums) table += number(xxh64(std::as_bytes(std::span(bytes))), 4);
    ++count;
  }
  std::string file() const {
    return frames + number(0x184D2A5E, 4) + number(table.size() + 9, 4) + table + number(count, 4) +
           number(checksums ? descriptor : descriptor & 0x7F, 1) + number(0x8F92EAB1, 4);
  }
};

}  // namespace crosvm::test
