#include "disk/tools/tool_image.h"

#include <sys/stat.h>

#include <algorithm>
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

/// Remembers which files they were.
class ToolImage::KnownNames final : public ImageNames {
 public:
  using ImageNames::ImageNames;

  Result<File> open(const Request& request) override {
    File file = TRY(ImageNames::open(request));
    struct stat status{};
    if (::fstat(file.fd.get(), &status) != 0) {
      return fail(Error::from_errno("looking at", file.object));
    }
    opened_.emplace_back(status.st_dev, status.st_ino);
    return file;
  }
  std::vector<FileIdentity> take() { return std::move(opened_); }

 private:
  std::vector<FileIdentity> opened_;
};

ToolImage::ToolImage(std::unique_ptr<EventLoop> loop, std::shared_ptr<const Fd> file,
                     ImageFormat format, std::unique_ptr<Disk> disk,
                     std::vector<FileIdentity> named)
    : loop_(std::move(loop)),
      file_(std::move(file)),
      format_(format),
      disk_(std::move(disk)),
      named_(std::move(named)) {}

Result<ToolImage> ToolImage::open(const std::string& path, const Options& options) {
  auto file = options.file;
  if (!file) {
    file = std::make_shared<const Fd>(
        TRY(open_image_file(path, {.read_only = options.read_only, .for_tool = true})));
  }
  const ImageFormat format =
      options.format ? *options.format : TRY(detect_image_format(*file, path));
  auto loop = TRY(EventLoop::create());
  AsyncFiles files = TRY(AsyncFiles::create(*loop, ring_if_any()));
  KnownNames names({.path = path,
                    .allowed = options.allowed,
                    .read_only = options.read_only,
                    .lock = options.lock_named,
                    .for_tool = true});
  TRY(names.check_allowed());
  auto disk = TRY(open_disk(
      file, {.object = path, .read_only = options.read_only, .format = format}, files, &names));
  return ToolImage(std::move(loop), std::move(file), format, std::move(disk), names.take());
}

bool ToolImage::consists_of(const std::string& path) const {
  struct stat asked{};
  struct stat own{};
  if (::stat(path.c_str(), &asked) != 0 || ::fstat(file_->get(), &own) != 0) return false;
  const FileIdentity wanted(asked.st_dev, asked.st_ino);
  return wanted == FileIdentity(own.st_dev, own.st_ino) ||
         std::ranges::find(named_, wanted) != named_.end();
}

}  // namespace crosvm
