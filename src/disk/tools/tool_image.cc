#include "disk/tools/tool_image.h"

#include <optional>
#include <utility>

#include "base/io_uring.h"
#include "disk/image_file.h"
#include "disk/image_names.h"
#include "disk/open_disk.h"

namespace crosvm {
namespace {

constexpr uint32_t kRingEntries = 64;

/// Threads do the work where there is no io_uring.
std::optional<IoUring> ring_if_any() {
  auto ring = IoUring::create(kRingEntries);
  if (!ring) return std::nullopt;
  return std::move(*ring);
}

}  // namespace

ToolImage::ToolImage(std::unique_ptr<EventLoop> loop, std::shared_ptr<const Fd> file,
                     ImageFormat format, std::unique_ptr<Disk> disk)
    : loop_(std::move(loop)), file_(std::move(file)), format_(format), disk_(std::move(disk)) {}

Result<ToolImage> ToolImage::open(const std::string& path, const Options& options) {
  auto file = options.file;
  if (!file) {
    file = std::make_shared<const Fd>(TRY(open_image_file(path, {.read_only = options.read_only})));
  }
  const ImageFormat format =
      options.format ? *options.format : TRY(detect_image_format(*file, path));
  auto loop = TRY(EventLoop::create());
  AsyncFiles files = TRY(AsyncFiles::create(*loop, ring_if_any()));
  ImageNames names({.path = path, .allowed = options.allowed, .read_only = options.read_only});
  auto disk = TRY(open_disk(
      file, {.object = path, .read_only = options.read_only, .format = format}, files, &names));
  return ToolImage(std::move(loop), std::move(file), format, std::move(disk));
}

Result<uint64_t> virtual_size(const std::string& path, const ToolImage::Options& options) {
  return TRY(ToolImage::open(path, options)).disk().size();
}

}  // namespace crosvm
