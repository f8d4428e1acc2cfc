#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/fd.h"
#include "base/result.h"
#include "memory/guest_address.h"

namespace crosvm {

/// Which pages of the guest a device has written to: a bitmap from guest address 0 on, in memory
/// that is shared with whoever copies the guest while it runs, and clears bits as it goes. We write
/// it and never read it. From any thread.
class DirtyLog {
 public:
  static constexpr uint64_t kPage = 4096;  ///< bytes that one bit stands for

  /// Maps `size` bytes at `offset` of `file`. Errors: invalid_argument when it is no regular file,
  /// or one without these bytes; else the errno of mmap. As with guest memory, a file that shrinks
  /// later ends this process.
  static Result<std::shared_ptr<DirtyLog>> map(const Fd& file, uint64_t offset, uint64_t size);
  /// The same log, with an eventfd that `tell` signals.
  std::shared_ptr<DirtyLog> with_event(Fd event) const;

  /// Whether these bytes have their bits here.
  bool covers(GuestAddress start, uint64_t length) const;
  /// To be called after the write to these bytes, all of which are covered.
  void mark(GuestAddress start, uint64_t length);
  /// Signals the eventfd if there is one, and something was marked since.
  void tell();

  /// Bytes of the bitmap.
  uint64_t size() const;

 private:
  struct Mapping;
  DirtyLog(std::shared_ptr<Mapping> mapping, Fd event)
      : mapping_(std::move(mapping)), event_(std::move(event)) {}

  std::shared_ptr<Mapping> mapping_;
  Fd event_;
  std::atomic<bool> marked_ = false;
};

/// Where a ring notes what it writes to its own parts; nowhere without a log.
struct RingDirtyLog {
  std::shared_ptr<DirtyLog> log;
  GuestAddress descriptor_area;  ///< packed
  GuestAddress device_area;      ///< as the bitmap knows it, which may be no RAM

  void mark_descriptors(uint64_t offset, uint64_t length) const {
    if (log) log->mark(descriptor_area + offset, length);
  }
  void mark_device_area(uint64_t offset, uint64_t length) const {
    if (log) log->mark(device_area + offset, length);
  }
};

}  // namespace crosvm
