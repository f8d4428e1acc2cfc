#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/fd.h"
#include "base/result.h"
#include "disk/sector_model.h"

namespace crosvm::test {

/// Memory in which a process says what it asks of a disk and what has ended. It outlives the
/// process: an event is there as a whole or not at all.
class KillLog {
 public:
  static constexpr size_t kMostEvents = 1 << 17;

  /// Errors: those of memfd_create and mmap.
  static Result<KillLog> create();
  /// In the process that works: `memory` is what `descriptor` gave.
  static Result<KillLog> attach(Fd memory);

  const Fd& descriptor() const { return memory_; }
  /// The disk is open.
  void set_open() { shared_->is_open.store(true, std::memory_order_release); }
  bool is_open() const { return shared_->is_open.load(std::memory_order_acquire); }
  bool is_full() const { return shared_->count.load(std::memory_order_relaxed) == kMostEvents; }
  /// Dropped when the log is full.
  void add(const DiskEvent& event);
  std::span<const DiskEvent> events() const;

 private:
  struct Shared {
    std::atomic<bool> is_open;
    std::atomic<uint64_t> count;
    DiskEvent events[kMostEvents];
  };
  static_assert(std::atomic<uint64_t>::is_always_lock_free);
  struct Unmap {
    void operator()(Shared* shared) const;
  };
  KillLog(Fd memory, Shared* shared) : memory_(std::move(memory)), shared_(shared) {}

  Fd memory_;
  std::unique_ptr<Shared, Unmap> shared_;
};

}  // namespace crosvm::test
