#include "disk/image_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include <chrono>
#include <utility>

#include "base/format.h"
#include "base/user_file.h"

namespace crosvm {
namespace {

constexpr auto kLockPatience = std::chrono::seconds(1);
constexpr timespec kLockPoll{.tv_sec = 0, .tv_nsec = 20'000'000};

bool is_forbidden(std::errc code) {
  return code == std::errc::permission_denied || code == std::errc::operation_not_permitted ||
         code == std::errc::read_only_file_system;
}

Result<Fd> open_named(const std::string& object, const ImageFileOptions& options) {
  Result<Fd> image = open_user_file(object, image_file_flags(options));
  const bool can_be_ro = !options.read_only && !options.for_tool;
  if (!image && can_be_ro && is_forbidden(image.error().code())) {
    return fail(Error(image.error().code(), image.error().what() + ", or add ro"));
  }
  return image;
}

/// Neither a directory nor a pipe.
Result<void> check_type(const Fd& image, const std::string& object) {
  Result<uint64_t> size = file_size(image, object);
  if (!size && size.error().code() == std::errc::invalid_argument) {
    return fail(
        Error::invalid(size.error().what() + "; a disk is an image file or a block device"));
  }
  if (!size) return fail(std::move(size).error());
  return {};
}

Error in_use(const std::string& object, const ImageFileOptions& options) {
  constexpr auto kCode = std::errc::resource_unavailable_try_again;
  if (options.for_tool) {
    return Error(kCode, format_text("{} is {} another process, perhaps a VM; end that one first",
                                    object, options.read_only ? "being written by" : "in use by"));
  }
  if (options.read_only) {
    return Error(kCode, object +
                            " is being written by another process, perhaps another VM; end that "
                            "one, or give lock=false and read what may be half written");
  }
  return Error(kCode, object +
                          " is in use by another process, perhaps another VM; end that one, give "
                          "ro to both, or lock=false at the risk of its contents");
}

/// Keeps others from writing what we read or write. The VM that had the image before may be on its
/// way out, so this tries for a second. A signal, which may want the end of this one, is not kept
/// waiting: interrupted.
Result<void> lock_image(const Fd& image, const std::string& object,
                        const ImageFileOptions& options) {
  int operation = (options.read_only ? LOCK_SH : LOCK_EX) | LOCK_NB;
  auto give_up = std::chrono::steady_clock::now() + kLockPatience;
  while (::flock(image.get(), operation) != 0) {
    int error = errno;
    if (error == EWOULDBLOCK) {
      if (std::chrono::steady_clock::now() >= give_up) return fail(in_use(object, options));
      error = ::clock_nanosleep(CLOCK_MONOTONIC, 0, &kLockPoll, nullptr);
      if (error == 0) continue;
    }
    Error failed = Error::from_errno("locking", object, error);
    if (error == EINTR || options.for_tool) return fail(std::move(failed));
    return fail(
        Error(failed.code(), failed.what() + "; give lock=false if nobody else has it in use"));
  }
  return {};
}

/// The descriptor of `/proc/self/fd/N` comes with the access that it was opened with.
Result<void> check_access(const Fd& image, const std::string& object,
                          const ImageFileOptions& options) {
  int flags = ::fcntl(image.get(), F_GETFL);
  if (flags < 0) return fail(Error::from_errno("looking at", object));
  int access = flags & O_ACCMODE;
  if (access == O_RDWR || (access == O_RDONLY && options.read_only)) return {};
  return fail(Error(std::errc::permission_denied,
                    format_text("{} is not open for reading and writing; open it so{}", object,
                                options.for_tool ? "" : ", or add ro")));
}

/// Blocking, as io_uring gives up on a slow read of a file that is not; direct where that is asked.
Result<void> set_flags(const Fd& image, const std::string& object,
                       const ImageFileOptions& options) {
  int flags = ::fcntl(image.get(), F_GETFL) & ~O_NONBLOCK;
  if (::fcntl(image.get(), F_SETFL, flags) != 0) {
    return fail(Error::from_errno("preparing", object));
  }
  if (!options.direct || ::fcntl(image.get(), F_SETFL, flags | O_DIRECT) == 0) return {};
  return fail(Error(std::errc::not_supported,
                    object + ": its file system has no direct I/O; leave out direct"));
}

/// Whether `path` still names what was opened by it: a tool that had it locked may have put another
/// file in its place meanwhile, and what is written to the old one would be lost.
bool is_still_named(const Fd& image, const std::string& path) {
  struct stat opened{};
  struct stat named{};
  return ::fstat(image.get(), &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

}  // namespace

int image_file_flags(const ImageFileOptions& options) {
  // Not blocking: a FIFO would wait for somebody to open its other end.
  return (options.read_only ? O_RDONLY : O_RDWR) | O_NONBLOCK;
}

Result<Fd> prepare_image_file(Fd image, const std::string& object,
                              const ImageFileOptions& options) {
  TRY(check_type(image, object));
  TRY(check_access(image, object, options));
  if (options.lock) TRY(lock_image(image, object, options));
  TRY(set_flags(image, object, options));
  return image;
}

Result<Fd> open_image_file(const std::string& path, const ImageFileOptions& options) {
  constexpr int kMostReplaced = 10;  // by somebody who does so all the time
  for (int tries = 1;; ++tries) {
    Fd image = TRY(prepare_image_file(TRY(open_named(path, options)), path, options));
    if (tries == kMostReplaced || is_still_named(image, path)) return image;
  }
}

}  // namespace crosvm
