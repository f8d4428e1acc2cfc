#include "disk/open_disk.h"

#include <utility>

#include "base/format.h"
#include "disk/guarded_disk.h"
#include "disk/raw_disk.h"

namespace crosvm {
namespace {

/// One image with all that it names; a named one is opened by the same rules.
class Opener {
 public:
  Opener(AsyncFiles& files, FileBroker* broker) : files_(files), broker_(broker) {}

  Result<std::unique_ptr<Disk>> open(std::shared_ptr<const Fd> image, const DiskOptions& options) {
    const ImageFormat format =
        options.format ? *options.format : TRY(detect_image_format(*image, options.object));
    switch (format) {
      case ImageFormat::kRaw:
        return open_raw(std::move(image), options);
      default:
        return fail(Error(std::errc::not_supported,
                          format_text("{}: it is a {} image, which is not supported by this build "
                                      "yet; convert it to raw",
                                      options.object, name_of(format))));
    }
  }

 private:
  Result<std::unique_ptr<Disk>> open_raw(std::shared_ptr<const Fd> image,
                                         const DiskOptions& options) {
    auto disk = TRY(raw_disk(std::move(image), options));
    if (options.format || options.read_only) return disk;
    return std::make_unique<GuardedDisk>(std::move(disk), options.object);
  }

  Result<std::unique_ptr<Disk>> raw_disk(std::shared_ptr<const Fd> image,
                                         const DiskOptions& options) {
    const RawImageFacts facts = TRY(inspect_raw_image(*image, options.object));
    auto file = TRY(files_.make(std::move(image)));
    return TRY(RawDisk::create(
        std::move(file), facts,
        {.read_only = options.read_only, .sparse = options.sparse, .dontcache = options.dontcache},
        options.object));
  }

  AsyncFiles& files_;
  FileBroker* broker_;
};

}  // namespace

Result<std::unique_ptr<Disk>> open_disk(std::shared_ptr<const Fd> image, const DiskOptions& options,
                                        AsyncFiles& files, FileBroker* broker) {
  return Opener(files, broker).open(std::move(image), options);
}

}  // namespace crosvm
