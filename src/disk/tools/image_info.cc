#include "disk/tools/image_info.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "base/event_loop.h"
#include "base/fd.h"
#include "disk/composite/composite_descriptor.h"
#include "disk/image_file.h"
#include "disk/image_names.h"
#include "disk/open_disk.h"
#include "disk/qcow2/sync_file.h"

namespace crosvm {
namespace {

/// From an image to the one that it names.
class Chain {
 public:
  explicit Chain(ImageNames& names) : names_(names) {}

  /// What is known of `image`, the one that the broker calls `number`.
  Result<void> add(std::shared_ptr<const Fd> image, uint32_t number, const std::string& path,
                   std::optional<ImageFormat> format) {
    ImageInfo info;
    info.path = path;
    TRY(add_host_facts(*image, info));
    info.format = format ? *format : TRY(detect_image_format(*image, path));
    const Result<void> told = add_format_facts(std::move(image), info);
    if (!told) info.problem = told.error().what();
    chain_.push_back(std::move(info));
    return follow(number);
  }

  std::vector<ImageInfo> take() { return std::move(chain_); }

 private:
  static Result<void> add_host_facts(const Fd& image, ImageInfo& info) {
    struct stat status{};
    if (::fstat(image.get(), &status) != 0) {
      return fail(Error::from_errno("looking at", info.path));
    }
    info.file_size = TRY(file_size(image, info.path));
    info.host_size =
        S_ISREG(status.st_mode) ? static_cast<uint64_t>(status.st_blocks) * 512 : info.file_size;
    info.is_written = ::flock(image.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!info.is_written) ::flock(image.get(), LOCK_UN);
    return {};
  }

  static Result<void> add_format_facts(std::shared_ptr<const Fd> image, ImageInfo& info) {
    switch (info.format) {
      case ImageFormat::kQcow2:
        return add_qcow2_facts(std::move(image), info);
      case ImageFormat::kComposite:
        return add_composite_facts(*image, info);
      case ImageFormat::kRaw:
        info.virtual_size = info.file_size;
        return {};
      default:
        return add_size(std::move(image), info);
    }
  }

  static Result<void> add_qcow2_facts(std::shared_ptr<const Fd> image, ImageInfo& info) {
    auto file = TRY(make_sync_file(std::move(image), info.path));
    info.qcow2 = TRY(read_qcow2_header(*file, info.path));
    info.virtual_size = info.qcow2->size;
    info.snapshots = TRY(read_qcow2_snapshots(*file, *info.qcow2, info.path));
    return {};
  }

  static Result<void> add_composite_facts(const Fd& image, ImageInfo& info) {
    const CompositeDescriptor descriptor = TRY(read_composite(image, info.path));
    info.virtual_size = descriptor.length;
    for (const CompositeComponent& part : descriptor.components) info.parts.push_back(part.path);
    return {};
  }

  /// Of a format that names no other file.
  static Result<void> add_size(std::shared_ptr<const Fd> image, ImageInfo& info) {
    auto loop = TRY(EventLoop::create());
    AsyncFiles files = TRY(AsyncFiles::create(*loop, std::nullopt));
    auto disk = TRY(open_disk(std::move(image),
                              {.object = info.path, .read_only = true, .format = info.format},
                              files, nullptr));
    info.virtual_size = disk->size();
    return {};
  }

  Result<void> follow(uint32_t number) {
    ImageInfo& last = chain_.back();
    if (!last.qcow2 || !last.qcow2->backing_name) return {};
    std::optional<ImageFormat> format;
    if (last.qcow2->backing_format == "raw") format = ImageFormat::kRaw;
    auto backing = names_.open({.from = number, .name = *last.qcow2->backing_name});
    if (!backing) {
      last.problem = backing.error().what();
      return {};
    }
    auto image = std::make_shared<const Fd>(std::move(backing->fd));
    const Result<void> added = add(std::move(image), backing->number, backing->object, format);
    // `last` may have moved.
    if (!added) chain_.back().problem = added.error().what();
    return {};
  }

  ImageNames& names_;
  std::vector<ImageInfo> chain_;
};

}  // namespace

Result<std::vector<ImageInfo>> image_info(const std::string& path,
                                          const std::vector<std::string>& allowed) {
  ImageNames names(
      {.path = path, .allowed = allowed, .read_only = true, .lock = false, .for_tool = true});
  TRY(names.check_allowed());
  auto image = std::make_shared<const Fd>(
      TRY(open_image_file(path, {.read_only = true, .lock = false, .for_tool = true})));
  Chain chain(names);
  TRY(chain.add(std::move(image), 0, path, std::nullopt));
  return chain.take();
}

}  // namespace crosvm
