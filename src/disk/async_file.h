#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/event_loop.h"
#include "base/fd.h"
#include "base/io_uring.h"

namespace crosvm {

/// Told when an operation of an AsyncFile has ended.
class FileDone {
 public:
  /// `result`: bytes transferred, perhaps fewer than asked for; the offset that kSeek found; 0 for
  /// other operations; or minus an errno. May queue further operations; they are submitted without
  /// another call.
  virtual void file_done(int64_t result) = 0;

 protected:
  ~FileDone() = default;
};

/// One operation. The buffers, their array and `done` belong to the caller and live until `done`
/// has been called.
struct FileOperation {
  enum class Kind : uint8_t {
    kRead,
    kWrite,
    kSync,           ///< fdatasync
    kAllocate,       ///< fallocate with the mode `flags`
    kDiscardBlocks,  ///< BLKDISCARD, of a block device
    kTruncate,       ///< ftruncate to `length`
    kSeek,  ///< lseek from `offset`, `flags` is SEEK_DATA or SEEK_HOLE: the result is an offset
  };
  Kind kind;
  std::span<const iovec> buffers = {};  ///< at most IOV_MAX
  uint64_t offset = 0;                  ///< bytes
  uint64_t length = 0;                  ///< bytes, of kAllocate, kDiscardBlocks, kTruncate
  int flags = 0;                        ///< RWF_*, FALLOC_FL_* or SEEK_*
  FileDone* done = nullptr;
};

/// Does what system calls do to a file, without blocking its event loop. Operations have no order
/// among themselves. All calls are made on the loop.
class AsyncFile {
 public:
  /// Waits for what the kernel has in hand; nobody is told any more.
  virtual ~AsyncFile() = default;

  /// Takes an operation, which begins with the next `submit`.
  virtual void queue(const FileOperation& operation) = 0;
  /// Begins all that was queued. What is finished at once is told before this returns.
  virtual void submit() = 0;
  /// `told` is called after a batch of operations has ended and each has been told of.
  void on_batch(std::function<void()> told) { batch_told_ = std::move(told); }

 protected:
  void tell_batch() {
    if (batch_told_) batch_told_();
  }

 private:
  std::function<void()> batch_told_;
};

class UringQueue;

/// A descriptor that outlives what it is given to.
inline std::shared_ptr<const Fd> borrowed(const Fd& fd) { return {std::shared_ptr<void>(), &fd}; }

/// Opens the files of one disk: all behind one io_uring, or, without one, each behind a few
/// threads.
class AsyncFiles {
 public:
  /// `loop` outlives what it makes. Errors: the errno of watching for completions.
  static Result<AsyncFiles> create(EventLoop& loop, std::optional<IoUring> ring);

  /// The files go together: what one has in hand is dropped
  /// when another goes. Errors: those of eventfd, epoll_ctl and of starting a thread.
  Result<std::unique_ptr<AsyncFile>> make(std::shared_ptr<const Fd> file);
  EventLoop& loop() const { return *loop_; }

 private:
  explicit AsyncFiles(EventLoop& loop) : loop_(&loop) {}
  EventLoop* loop_;
  std::shared_ptr<UringQueue> ring_;  // or none
};

/// The only file of a disk.
Result<std::unique_ptr<AsyncFile>> make_async_file(EventLoop& loop, std::shared_ptr<const Fd> file,
                                                   std::optional<IoUring> ring);

}  // namespace crosvm
