#include "disk/tools/raw_target.h"

#include <unistd.h>

#include "base/format.h"
#include "base/log.h"
#include "disk/image_format.h"

namespace crosvm {
namespace {

class RawTarget : public ImageTarget {
 public:
  RawTarget(const Fd& file, RawStart start, const std::string& object)
      : file_(file), start_(start), object_(object) {}

  uint64_t granule() const override { return 4096; }
  Result<void> write(uint64_t offset, std::span<const std::byte> bytes) override {
    if (offset == 0) TRY(check_start(bytes));
    return write_at(file_, offset, bytes, object_);
  }
  Result<void> write_zeroes(uint64_t, uint64_t) override { return {}; }
  Result<void> finish() override { return {}; }

 private:
  Result<void> check_start(std::span<const std::byte> bytes) const {
    const ImageFormat format = image_format_of(bytes);
    if (format == ImageFormat::kRaw) return {};
    const std::string what = format_text(
        "{}: the disk starts like {} image, and would be opened as one, perhaps with files that "
        "its guest has named in it",
        object_,
        format == ImageFormat::kAndroidSparse ? "an android-sparse"
                                              : format_text("a {}", name_of(format)));
    if (start_ == RawStart::kRefused) {
      return fail(Error::invalid(what + "; if it is to be raw all the same, give --format raw, and "
                                        "format=raw wherever it is used"));
    }
    log::warn("{}; give format=raw wherever it is used", what);
    return {};
  }

  const Fd& file_;
  const RawStart start_;
  const std::string object_;
};

}  // namespace

Result<void> write_at(const Fd& file, uint64_t offset, std::span<const std::byte> bytes,
                      const std::string& object) {
  while (!bytes.empty()) {
    const ssize_t done =
        ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return fail(Error::from_errno("writing", object));
    if (done == 0) return fail(Error::from_errno("writing", object, EIO));
    bytes = bytes.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
  return {};
}

Result<std::unique_ptr<ImageTarget>> make_raw_target(const Fd& file, uint64_t size, RawStart start,
                                                     const std::string& object) {
  if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0) {
    return fail(Error::from_errno("making", object));
  }
  return std::make_unique<RawTarget>(file, start, object);
}

}  // namespace crosvm
