#include "disk/tools/stream_zstd.h"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "base/format.h"
#include "disk/image_reader.h"
#include "disk/tools/write_granules.h"
#include "disk/zstd/zstd_stream.h"
#include "disk/zstd/zstd_walk.h"

namespace crosvm {
namespace {

constexpr uint64_t kWriteBytes = 1 << 20;

/// Gathers what is decoded until the target takes it: whole granules.
class Gathering {
 public:
  explicit Gathering(ImageTarget& target)
      : target_(target), most_(std::max(kWriteBytes, target.granule())) {
    bytes_.reserve(most_);
  }

  uint64_t total() const { return written_ + bytes_.size(); }

  Result<void> append(std::span<const std::byte> more) {
    while (!more.empty()) {
      const size_t taken = std::min<size_t>(more.size(), most_ - bytes_.size());
      bytes_.insert(bytes_.end(), more.begin(), more.begin() + static_cast<ptrdiff_t>(taken));
      more = more.subspan(taken);
      if (bytes_.size() == most_) TRY(write());
    }
    return {};
  }
  Result<void> write() {
    TRY(write_granules(target_, written_, bytes_));
    written_ += bytes_.size();
    bytes_.clear();
    return {};
  }

 private:
  ImageTarget& target_;
  const uint64_t most_;  // a multiple of the granule: both are powers of two
  std::vector<std::byte> bytes_;
  uint64_t written_ = 0;
};

}  // namespace

Result<ZstdStream> ZstdStream::open(const Fd& file, std::string object, ToolProgress& progress) {
  ImageReader reader = TRY(ImageReader::create(file, object));
  const uint64_t size = TRY(
      ZstdWalk(reader).measure_all([&](uint64_t at) { return progress.tell(at, reader.size()); }));
  return ZstdStream(file, std::move(object), size, progress);
}

Result<void> ZstdStream::copy_to(ImageTarget& target) {
  ImageReader reader = TRY(ImageReader::create(*file_, object_));
  Gathering gathering(target);
  auto changed = [&] {
    return fail(Error::invalid(format_text(
        "{}: its zstd frames do not make the {} bytes that they say; test it with `zstd -t`",
        object_, size_)));
  };
  TRY(decode_zstd(reader, 0, reader.size(), [&](std::span<const std::byte> bytes) -> Result<void> {
    if (bytes.size() > size_ - gathering.total()) return changed();
    TRY(gathering.append(bytes));
    return progress_->tell(gathering.total(), size_);
  }));
  if (gathering.total() != size_) return changed();
  TRY(gathering.write());
  return target.finish();
}

}  // namespace crosvm
