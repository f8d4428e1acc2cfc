#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace crosvm {

/// One request to a Disk. Belongs to the caller, and lives until `disk_done` has been called.
class DiskRequest {
 public:
  enum class Kind : uint8_t {
    kRead,
    kWrite,
    kFlush,        ///< all writes that have ended are on stable storage afterwards
    kDiscard,      ///< a hint: the contents are not needed any more
    kWriteZeroes,  ///< zeroes are read afterwards
    kExtent,       ///< finds out about the bytes from `offset` on: see `extent`
  };
  /// What a run of bytes is, as far as that is known without reading it.
  struct Extent {
    uint64_t length = 0;     ///< bytes from `offset` on, at most the request's length; not 0
    bool is_zero = false;    ///< all read as zeroes
    bool is_present = true;  ///< of a format with a backing file: the bytes are not that file's
  };

  /// On the disk's loop. `error`: 0, or an errno. May start further requests; they are submitted
  /// without another call.
  virtual void disk_done(int error) = 0;

  Kind kind = Kind::kRead;
  bool may_unmap = false;  ///< kWriteZeroes: the space may be given back to the host
  uint64_t offset = 0;     ///< bytes
  uint64_t length = 0;     ///< bytes; of a read or write the sizes of `buffers` together
  std::vector<GuestSlice> buffers;
  Extent extent;  ///< the answer to kExtent

 protected:
  ~DiskRequest() = default;
};

/// 0, or the errno of an error.
inline int errno_of(const Result<void>& result) {
  return result ? 0 : static_cast<int>(result.error().code());
}

/// What a guest should know of the storage below, in bytes; zero for what nobody knows.
struct DiskTopology {
  uint32_t physical_block = 0;    ///< a power of two
  uint32_t alignment_offset = 0;  ///< of the first aligned block
  uint32_t minimum_io = 0;        ///< granularity without penalty
  uint32_t optimal_io = 0;
};

/// An image of any format: bytes that are read and written asynchronously. All calls are made on
/// its loop.
class Disk {
 public:
  /// Waits for what is in flight; nobody is told any more.
  virtual ~Disk() = default;

  virtual uint64_t size() const = 0;  ///< bytes
  virtual DiskTopology topology() const = 0;

  /// Takes a request, which begins with the next `submit`. Never calls back. Requests have no order
  /// among themselves. One that reaches past the end ends with EINVAL, a write to a read-only disk
  /// with EROFS; one of no bytes does nothing.
  virtual void start(DiskRequest& request) = 0;
  /// Begins all that was started. What is finished at once is told before this returns.
  virtual void submit() = 0;
  /// `told` is called after a batch of requests has ended and each has been told of.
  virtual void on_batch(std::function<void()> told) = 0;

  using ResizeDone = std::function<void(const Result<void>& result)>;
  /// Makes the disk `bytes` long; what is new reads as zeroes, what is cut off is lost. No request
  /// is on its way meanwhile. `done` is called on the loop, perhaps before this returns. Errors say
  /// why, without the disk's name, and what helps: not_supported where the format cannot,
  /// read_only_file_system, else the errno of the call; the size has not changed then.
  virtual void resize(uint64_t bytes, ResizeDone done);
};

}  // namespace crosvm
