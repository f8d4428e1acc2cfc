#include <utility>

#include "base/log.h"
#include "devices/block/block_device.h"
#include "disk/image_file.h"
#include "disk/image_names.h"
#include "disk/open_disk.h"
#include "disk/raw_image.h"

namespace crosvm {
namespace {

ImageFileOptions file_options(const BlockConfig& config) {
  return {.read_only = config.read_only, .direct = config.direct, .lock = config.lock};
}

ImageNames::Options name_options(const BlockConfig& config) {
  return {.path = config.path,
          .allowed = config.allow_backing,
          .read_only = config.read_only,
          .direct = config.direct,
          .lock = config.lock};
}

/// Whether more than one worker may have it open, each with a disk of its own.
Result<bool> can_be_shared(const Fd& image, const BlockConfig& config) {
  const ImageFormat format =
      config.format ? *config.format : TRY(detect_image_format(image, config.path));
  if (format != ImageFormat::kRaw) {
    log::warn(
        "{}: multiple-workers has no effect: one worker must look after the tables of a {} "
        "image",
        config.path, name_of(format));
    return false;
  }
  const RawImageFacts facts = TRY(inspect_raw_image(image, config.path));
  if (facts.alignment.offset <= BlockConfig::kSectorSize) return true;
  log::warn(
      "{}: multiple-workers has no effect: direct I/O here is in blocks of {} bytes, and one "
      "worker must keep writes to one block apart",
      config.path, facts.alignment.offset);
  return false;
}

}  // namespace

Result<BlockResources> BlockFactory::open(const BlockConfig& config) {
  // What is asked for by name must be there, and here the reason is known.
  if (config.async_executor == AsyncExecutor::kUring) {
    TRY(with_context(IoUring::create(1), "async-executor=uring"));
  }
  TRY(ImageNames(name_options(config)).check_allowed());
  return BlockResources{.image = TRY(open_image_file(config.path, file_options(config)))};
}

std::unique_ptr<FileBroker> BlockFactory::broker(const BlockConfig& config) {
  return std::make_unique<ImageNames>(name_options(config));
}

size_t BlockFactory::rings(const BlockConfig& config) {
  if (config.async_executor == AsyncExecutor::kEpoll) return 0;
  return config.multiple_workers ? BlockDevice::kQueues : 1;
}

Result<std::unique_ptr<VirtioDevice>> BlockFactory::create(const BlockConfig& config,
                                                           BlockResources resources,
                                                           DeviceContext context) {
  BlockConfig used = config;
  if (used.multiple_workers) used.multiple_workers = TRY(can_be_shared(resources.image, config));
  const DiskOptions options{.object = config.path,
                            .read_only = config.read_only,
                            .sparse = config.sparse,
                            .dontcache = config.dontcache && !config.direct,
                            .restarts = context.restarts,
                            .format = config.format};
  auto image = std::make_shared<const Fd>(std::move(resources.image));
  // The broker is there while the device is created. Workers that start later have a raw disk,
  // which names nothing.
  auto make = [image, options, broker = context.files](
                  EventLoop& loop,
                  std::optional<IoUring> ring) mutable -> Result<std::unique_ptr<Disk>> {
    AsyncFiles files = TRY(AsyncFiles::create(loop, std::move(ring)));
    return open_disk(image, options, files, std::exchange(broker, nullptr));
  };
  return TRY(BlockDevice::create(used, std::move(make), std::move(context)));
}

}  // namespace crosvm
