#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>

#include "base/fd.h"
#include "base/result.h"

namespace crosvm {

/// One io_uring, restricted from birth (IORING_REGISTER_RESTRICTIONS) to readv, writev, fsync,
/// fallocate, poll, cancel and timeout: a ring is a way round a system call filter, so it can do
/// nothing that a device's filter would not allow. No SQPOLL. Belongs to one thread at a time.
///
/// Operations are queued, then given to the kernel by one `submit`. The iovec array and the
/// descriptor must stay valid until then; the memory it points to until the completion.
class IoUring {
 public:
  /// `entries`: operations in one submission; twice as many may be in flight. `held`, if there is
  /// one, is a descriptor whose file the ring keeps open until the last of its operations has
  /// ended, also when its process is killed before; the caller may close it. Errors: the errno of
  /// the call, with the sysctl, limit or filter that is the likely cause and its fix.
  static Result<IoUring> create(uint32_t entries, const Fd& held = {});
  IoUring(IoUring&&) noexcept;
  IoUring& operator=(IoUring&&) noexcept;
  ~IoUring();

  // Each returns false when the queue is full: submit, reap, and try again. `token` comes back with
  // the completion.
  /// `flags`: RWF_*.
  bool readv(const Fd& fd, const iovec* buffers, uint32_t count, uint64_t offset, uint64_t token,
             int flags = 0);
  bool writev(const Fd& fd, const iovec* buffers, uint32_t count, uint64_t offset, uint64_t token,
              int flags = 0);
  /// `data_only`: as fdatasync.
  bool fsync(const Fd& fd, bool data_only, uint64_t token);
  /// `mode`: FALLOC_FL_*.
  bool fallocate(const Fd& fd, int mode, uint64_t offset, uint64_t length, uint64_t token);

  /// Gives what is queued to the kernel. Errors: the errno of io_uring_enter.
  Result<void> submit();
  struct Completion {
    uint64_t token = 0;
    int32_t result = 0;  ///< bytes, or minus an errno
  };
  /// Takes one completion; false when there is none. Makes no system call.
  bool reap(Completion& completion);
  /// Queued or in the kernel, not reaped.
  uint32_t in_flight() const;
  /// Readable while there are completions: watch it with EventLoop. Borrowed.
  const Fd& descriptor() const;

 private:
  struct State;
  explicit IoUring(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace crosvm
