#include "disk/async_file.h"

#include <utility>

#include "disk/threaded_file.h"
#include "disk/uring_file.h"

namespace crosvm {

Result<AsyncFiles> AsyncFiles::create(EventLoop& loop, std::optional<IoUring> ring) {
  AsyncFiles files(loop);
  if (ring) files.ring_ = TRY(UringQueue::create(loop, *std::move(ring)));
  return files;
}

Result<std::unique_ptr<AsyncFile>> AsyncFiles::make(std::shared_ptr<const Fd> file) {
  if (ring_) return std::make_unique<UringFile>(ring_, std::move(file));
  return TRY(ThreadedFile::create(*loop_, std::move(file)));
}

Result<std::unique_ptr<AsyncFile>> make_async_file(EventLoop& loop, std::shared_ptr<const Fd> file,
                                                   std::optional<IoUring> ring) {
  return TRY(AsyncFiles::create(loop, std::move(ring))).make(std::move(file));
}

}  // namespace crosvm
