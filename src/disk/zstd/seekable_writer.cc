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
constexpr size_t kMostManyFrame = kMostFrame / 2;  // of which a reader can hold kMostFrames

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

/// Makes a frame of its piece; nothing when there is not enough memory.
OrderedPacker::Pack make_pack(int level) {
  std::shared_ptr<ZSTD_CCtx> context(ZSTD_createCCtx(), FreeContext());
  if (context) {
    // A frame's own checksum is the number that the table has of it.
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, level);
  }
  return [context](std::span<const std::byte> piece) {
    std::vector<std::byte> frame;
    if (!context) return frame;
    frame.resize(ZSTD_compressBound(piece.size()));
    const size_t made =
        ZSTD_compress2(context.get(), frame.data(), frame.size(), piece.data(), piece.size());
    frame.resize(ZSTD_isError(made) != 0 ? 0 : made);
    return frame;
  };
}

}  // namespace

SeekableZstdWriter::SeekableZstdWriter(const Fd& file, std::string object, const Options& options)
    : file_(&file),
      object_(std::move(object)),
      options_(options),
      pack_(make_pack(options.level)),
      packer_(std::make_unique<OrderedPacker>(
          OrderedPacker::Options{.helpers = options.helpers, .piece_bytes = options.frame_bytes},
          [level = options.level] { return make_pack(level); })) {}

SeekableZstdWriter::SeekableZstdWriter(SeekableZstdWriter&&) noexcept = default;
SeekableZstdWriter::~SeekableZstdWriter() = default;

size_t SeekableZstdWriter::frame_bytes_for(uint64_t bytes) {
  size_t frame = kFrameBytes;
  while (frame < kMostManyFrame && bytes / frame >= ZstdIndex::kMostFrames) frame *= 2;
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
  return SeekableZstdWriter(file, std::move(object), options);
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
      if (zero_frame_.empty()) zero_frame_ = pack_(std::vector<std::byte>(taken));
      TRY(make_room());
      packer_->give_packed(taken, zero_frame_);
      continue;
    }
    pending_.resize(pending_.size() + taken);
    if (pending_.size() == options_.frame_bytes) TRY(end_frame());
  }
  return {};
}

Result<void> SeekableZstdWriter::end_frame() {
  TRY(make_room());
  const uint64_t length = pending_.size();
  packer_->give(length, std::exchange(pending_, {}));
  return {};
}

Result<void> SeekableZstdWriter::make_room() {
  return packer_->is_full() ? put_oldest() : Result<void>();
}

Result<void> SeekableZstdWriter::put_oldest() {
  const OrderedPacker::Packed frame = packer_->take();
  if (frame.packed.empty()) return fail(Error::from_errno("compressing", object_, ENOMEM));
  return put_frame(frame.packed, static_cast<uint32_t>(frame.tag));
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
  while (!packer_->is_empty()) TRY(put_oldest());
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
