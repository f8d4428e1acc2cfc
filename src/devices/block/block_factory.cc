#include <fcntl.h>
#include <sys/file.h>
#include <time.h>

#include <chrono>

#include "base/format.h"
#include "base/log.h"
#include "base/user_file.h"
#include "devices/block/block_device.h"
#include "disk/image_format.h"
#include "disk/raw_disk.h"

namespace crosvm {
namespace {

constexpr auto kLockPatience = std::chrono::seconds(1);
constexpr timespec kLockPoll{.tv_sec = 0, .tv_nsec = 20'000'000};

bool is_forbidden(std::errc code) {
  return code == std::errc::permission_denied || code == std::errc::operation_not_permitted ||
         code == std::errc::read_only_file_system;
}

Result<Fd> open_image(const BlockConfig& config) {
  // Not blocking: a FIFO would wait for somebody to open its other end.
  int flags = (config.read_only ? O_RDONLY : O_RDWR) | O_NONBLOCK;
  Result<Fd> image = open_user_file(config.path, flags);
  if (!image && !config.read_only && is_forbidden(image.error().code())) {
    return fail(Error(image.error().code(), image.error().what() + ", or add ro"));
  }
  if (!image) return image;
  Result<uint64_t> size = file_size(*image, config.path);  // neither a directory nor a pipe
  if (!size && size.error().code() == std::errc::invalid_argument) {
    return fail(
        Error::invalid(size.error().what() + "; a disk is an image file or a block device"));
  }
  if (!size) return fail(std::move(size).error());
  return image;
}

Error in_use(const BlockConfig& config) {
  constexpr auto kCode = std::errc::resource_unavailable_try_again;
  if (config.read_only) {
    return Error(kCode, config.path +
                            " is being written by another process, perhaps another VM; end that "
                            "one, or give lock=false and read what may be half written");
  }
  return Error(kCode, config.path +
                          " is in use by another process, perhaps another VM; end that one, give "
                          "ro to both, or lock=false at the risk of its contents");
}

/// Keeps others from writing what we read or write. The VM that had the image before may be on its
/// way out, so this tries for a second. A signal, which may want the end of this one, is not kept
/// waiting: interrupted.
Result<void> lock_image(const Fd& image, const BlockConfig& config) {
  int operation = (config.read_only ? LOCK_SH : LOCK_EX) | LOCK_NB;
  auto give_up = std::chrono::steady_clock::now() + kLockPatience;
  while (::flock(image.get(), operation) != 0) {
    int error = errno;
    if (error == EWOULDBLOCK) {
      if (std::chrono::steady_clock::now() >= give_up) return fail(in_use(config));
      error = ::clock_nanosleep(CLOCK_MONOTONIC, 0, &kLockPoll, nullptr);
      if (error == 0) continue;
    }
    Error failed = Error::from_errno("locking", config.path, error);
    if (error == EINTR) return fail(std::move(failed));
    return fail(
        Error(failed.code(), failed.what() + "; give lock=false if nobody else has it in use"));
  }
  return {};
}

/// The descriptor of `/proc/self/fd/N` comes with the access that it was opened with.
Result<void> check_access(const Fd& image, const BlockConfig& config) {
  int flags = ::fcntl(image.get(), F_GETFL);
  if (flags < 0) return fail(Error::from_errno("looking at", config.path));
  int access = flags & O_ACCMODE;
  if (access == O_RDWR || (access == O_RDONLY && config.read_only)) return {};
  return fail(Error(std::errc::permission_denied,
                    config.path + " is not open for reading and writing; open it so, or add ro"));
}

/// Blocking, as io_uring gives up on a slow read of a file that is not; direct where that is asked.
Result<void> set_flags(const Fd& image, const BlockConfig& config) {
  int flags = ::fcntl(image.get(), F_GETFL) & ~O_NONBLOCK;
  if (::fcntl(image.get(), F_SETFL, flags) != 0) {
    return fail(Error::from_errno("preparing", config.path));
  }
  if (!config.direct || ::fcntl(image.get(), F_SETFL, flags | O_DIRECT) == 0) return {};
  return fail(Error(std::errc::not_supported,
                    config.path + ": its file system has no direct I/O; leave out direct"));
}

Result<std::unique_ptr<Disk>> make_disk(EventLoop& loop, std::shared_ptr<const Fd> image,
                                        const RawImageFacts& facts, const BlockConfig& config,
                                        std::optional<IoUring> ring) {
  auto file = TRY(make_async_file(loop, std::move(image), std::move(ring)));
  RawDiskOptions options{.read_only = config.read_only,
                         .sparse = config.sparse,
                         .dontcache = config.dontcache && !config.direct};
  return TRY(RawDisk::create(std::move(file), facts, options, config.path));
}

}  // namespace

Result<BlockResources> BlockFactory::open(const BlockConfig& config) {
  // What is asked for by name must be there, and here the reason is known.
  if (config.async_executor == AsyncExecutor::kUring) {
    TRY(with_context(IoUring::create(1), "async-executor=uring"));
  }
  Fd image = TRY(open_image(config));
  TRY(check_access(image, config));
  if (config.lock) TRY(lock_image(image, config));
  TRY(set_flags(image, config));
  return BlockResources{.image = std::move(image)};
}

size_t BlockFactory::rings(const BlockConfig& config) {
  if (config.async_executor == AsyncExecutor::kEpoll) return 0;
  return config.multiple_workers ? BlockDevice::kQueues : 1;
}

Result<std::unique_ptr<VirtioDevice>> BlockFactory::create(const BlockConfig& config,
                                                           BlockResources resources,
                                                           DeviceContext context) {
  TRY(require_raw_format(resources.image, config.path));
  RawImageFacts facts = TRY(inspect_raw_image(resources.image, config.path));
  BlockConfig used = config;
  if (used.multiple_workers && facts.alignment.offset > BlockConfig::kSectorSize) {
    log::warn(
        "{}: multiple-workers has no effect: direct I/O here is in blocks of {} bytes, and "
        "one worker must keep writes to one block apart",
        config.path, facts.alignment.offset);
    used.multiple_workers = false;
  }
  auto image = std::make_shared<Fd>(std::move(resources.image));  // the disks' only owner
  auto make = [image, facts, used](EventLoop& loop, std::optional<IoUring> ring) {
    return make_disk(loop, image, facts, used, std::move(ring));
  };
  return TRY(BlockDevice::create(used, std::move(make), std::move(context)));
}

}  // namespace crosvm
