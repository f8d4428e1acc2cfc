#include "disk/tools/zstd_target.h"

#include <utility>

#include "base/format.h"
#include "disk/zstd/seekable_writer.h"
#include "disk/zstd/zstd_index.h"

namespace crosvm {
namespace {

class ZstdTarget : public ImageTarget {
 public:
  explicit ZstdTarget(SeekableZstdWriter writer) : writer_(std::move(writer)) {}

  uint64_t granule() const override { return 4096; }
  Result<void> write(uint64_t, std::span<const std::byte> bytes) override {
    return writer_.append(bytes);
  }
  Result<void> write_zeroes(uint64_t, uint64_t length) override {
    return writer_.append_zeroes(length);
  }
  Result<void> finish() override { return writer_.finish(); }

 private:
  SeekableZstdWriter writer_;
};

}  // namespace

Result<std::unique_ptr<ImageTarget>> make_zstd_target(const Fd& file, uint64_t size,
                                                      const std::string& object) {
  const size_t frame = SeekableZstdWriter::frame_bytes_for(size);
  if (size / frame >= ZstdIndex::kMostFrames) {
    return fail(Error(std::errc::file_too_large,
                      format_text("{}: a disk of {} bytes has too many zstd frames to be read at "
                                  "random; make it a qcow2 image",
                                  object, size)));
  }
  return std::make_unique<ZstdTarget>(
      TRY(SeekableZstdWriter::create(file, object, {.frame_bytes = frame})));
}

}  // namespace crosvm
