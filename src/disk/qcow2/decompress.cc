#include "disk/qcow2/decompress.h"

#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace crosvm {
namespace {

constexpr int kReadWindowBits = -15;   // raw deflate of any window
constexpr int kWriteWindowBits = -12;  // what other readers expect
constexpr int kMostZstdWindowLog = 23;

bool inflate_cluster(std::span<const std::byte> from, std::span<std::byte> to) {
  z_stream stream = {};
  if (inflateInit2(&stream, kReadWindowBits) != Z_OK) return false;
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(from.data()));
  stream.avail_in = static_cast<uInt>(from.size());
  stream.next_out = reinterpret_cast<Bytef*>(to.data());
  stream.avail_out = static_cast<uInt>(to.size());
  const int result = inflate(&stream, Z_FINISH);
  const bool full = stream.avail_out == 0;
  inflateEnd(&stream);
  return full && (result == Z_STREAM_END || result == Z_BUF_ERROR);
}

bool unpack_zstd(std::span<const std::byte> from, std::span<std::byte> to) {
  std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  if (!context) return false;
  ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMostZstdWindowLog);
  ZSTD_inBuffer in{.src = from.data(), .size = from.size(), .pos = 0};
  ZSTD_outBuffer out{.dst = to.data(), .size = to.size(), .pos = 0};
  while (out.pos < out.size) {
    const size_t before = in.pos + out.pos;
    const size_t result = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(result) || in.pos + out.pos == before) return false;
  }
  return true;
}

size_t deflate_cluster(std::span<const std::byte> from, std::span<std::byte> to) {
  z_stream stream = {};
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kWriteWindowBits, 9,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return 0;
  }
  stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(from.data()));
  stream.avail_in = static_cast<uInt>(from.size());
  stream.next_out = reinterpret_cast<Bytef*>(to.data());
  stream.avail_out = static_cast<uInt>(to.size());
  const int result = deflate(&stream, Z_FINISH);
  const size_t used = to.size() - stream.avail_out;
  deflateEnd(&stream);
  return result == Z_STREAM_END ? used : 0;
}

}  // namespace

bool decompress_cluster(Qcow2Compression type, std::span<const std::byte> from,
                        std::span<std::byte> to) {
  return type == Qcow2Compression::kZlib ? inflate_cluster(from, to) : unpack_zstd(from, to);
}

size_t compress_cluster(Qcow2Compression type, std::span<const std::byte> from,
                        std::span<std::byte> to) {
  if (type == Qcow2Compression::kZlib) return deflate_cluster(from, to);
  const size_t used = ZSTD_compress(to.data(), to.size(), from.data(), from.size(), 3);
  return ZSTD_isError(used) != 0 ? 0 : used;
}

}  // namespace crosvm
