#include "disk/zstd/seekable_writer.h"

#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/format.h"
#include "disk/zstd/zstd_format.h"
#include "disk/zstd/zstd_index.h"

namespace crosvm {
namespace {

using namespace zstd;

constexpr size_t kWriteBytes = 1 << 20;  // at a time
constexpr size_t kLeastFrame = 4096;

}  // namespace

void SeekableZstdWriter::FreeContext::operator()(ZSTD_CCtx_s* context) const {
  ZSTD_freeCCtx(context);
}

SeekableZstdWriter::SeekableZstdWriter(const Fd& file, std::string object, const Options& options)
    : file_(&file), object_(std::move(object)), options_(options), context_(ZSTD_createCCtx()) {}

SeekableZstdWriter::SeekableZstdWriter(SeekableZstdWriter&&) noexcept = default;
SeekableZstdWriter::~SeekableZstdWriter() = default;

size_t SeekableZstdWriter::frame_bytes_for(uint64_t bytes) {
  size_t frame = kFrameBytes;
  while (frame < kMostFrame && bytes / frame >= ZstdIndex::kMostFrames) frame *= 2;
  return frame;
}

Result<SeekableZstdWriter> SeekableZstdWriter::create(const Fd& file, std::string object,
                                                      const Options& options) {
  if (options.frame_bytes < kLeastFrame || options.frame_bytes > kMostFrame) {
    return fail(Error::invalid(format_text("{}: zstd frames have {} to {} bytes, not {}", object,
                                           kLeastFrame, kMostFrame, options.frame_bytes)));
  }
  if (options.level < 1 || options.level > ZSTD_maxCLevel()) {
    return fail(Error::invalid(format_text("{}: zstd has levels 1 to {}, not {}", object,
                                           ZSTD_maxCLevel(), options.level)));
  }
  SeekableZstdWriter writer(file, std::move(object), options);
  if (!writer.context_) return fail(Error::from_errno("compressing", writer.object_, ENOMEM));
  // A frame's own checksum is the number that the table has of it.
  ZSTD_CCtx_setParameter(writer.context_.get(), ZSTD_c_checksumFlag, 1);
  ZSTD_CCtx_setParameter(writer.context_.get(), ZSTD_c_compressionLevel, options.level);
  return writer;
}

Result<void> SeekableZstdWriter::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t taken = std::min(bytes.size(), options_.frame_bytes - pending_.size());
    pending_.insert(pending_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
    bytes = bytes.subspan(taken);
    if (pending_.size() == options_.frame_bytes) TRY(end_frame());
  }
  return {};
}

Result<void> SeekableZstdWriter::append_zeroes(uint64_t bytes) {
  while (bytes > 0) {
    const uint64_t taken = std::min<uint64_t>(bytes, options_.frame_bytes - pending_.size());
    bytes -= taken;
    if (taken == options_.frame_bytes) {
      if (zero_frame_.empty()) zero_frame_ = TRY(compress(std::vector<std::byte>(taken)));
      TRY(put_frame(zero_frame_, static_cast<uint32_t>(taken)));
      continue;
    }
    pending_.resize(pending_.size() + taken);
    if (pending_.size() == options_.frame_bytes) TRY(end_frame());
  }
  return {};
}

Result<std::vector<std::byte>> SeekableZstdWriter::compress(std::span<const std::byte> bytes) {
  std::vector<std::byte> frame(ZSTD_compressBound(bytes.size()));
  const size_t made =
      ZSTD_compress2(context_.get(), frame.data(), frame.size(), bytes.data(), bytes.size());
  if (ZSTD_isError(made) != 0) {
    return fail(Error(std::errc::not_enough_memory,
                      format_text("{}: zstd says: {}", object_, ZSTD_getErrorName(made))));
  }
  frame.resize(made);
  return frame;
}

Result<void> SeekableZstdWriter::end_frame() {
  TRY(put_frame(TRY(compress(pending_)), static_cast<uint32_t>(pending_.size())));
  pending_.clear();
  return {};
}

Result<void> SeekableZstdWriter::put_frame(std::span<const std::byte> frame, uint32_t length) {
  if (entries_.size() == ZstdIndex::kMostFrames) {
    return fail(Error(std::errc::file_too_large,
                      format_text("{}: more than {} zstd frames; make them larger", object_,
                                  ZstdIndex::kMostFrames)));
  }
  uint32_t checksum = 0;
  for (const std::byte byte : frame.last(sizeof(checksum))) {
    checksum = checksum >> 8 | static_cast<uint32_t>(byte) << 24;
  }
  entries_.push_back(
      {.file_bytes = static_cast<uint32_t>(frame.size()), .length = length, .checksum = checksum});
  return put(frame);
}

Result<void> SeekableZstdWriter::put(std::span<const std::byte> bytes) {
  out_.insert(out_.end(), bytes.begin(), bytes.end());
  if (out_.size() >= kWriteBytes) return flush();
  return {};
}

Result<void> SeekableZstdWriter::put_number(uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) out_.push_back(static_cast<std::byte>(value >> (8 * i)));
  return put({});
}

Result<void> SeekableZstdWriter::flush() {
  TRY(write_full(*file_, out_, object_));
  out_.clear();
  return {};
}

Result<void> SeekableZstdWriter::finish() {
  if (!pending_.empty()) TRY(end_frame());
  TRY(put_number(kSeekTableMagic, 4));
  TRY(put_number(entries_.size() * (kSeekEntry + kSeekChecksum) + kSeekFooter, 4));
  for (const Entry& entry : entries_) {
    TRY(put_number(entry.file_bytes, 4));
    TRY(put_number(entry.length, 4));
    TRY(put_number(entry.checksum, 4));
  }
  TRY(put_number(entries_.size(), 4));
  TRY(put_number(kSeekChecksums, 1));
  TRY(put_number(kSeekableMagic, 4));
  return flush();
}

}  // namespace crosvm
