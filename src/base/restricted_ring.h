#pragma once

#include <cstdint>

#include "base/fd.h"
#include "base/result.h"

struct io_uring;

namespace crosvm {

/// Sets `ring` up so that the kernel takes nothing from it but readv, writev, fsync, fallocate,
/// poll, cancel and timeout, without flags, and no further registration; it can be submitted to.
/// The caller ends it with io_uring_queue_exit. `held`: as in IoUring::create. Errors: those of
/// IoUring::create.
Result<void> set_up_restricted_ring(io_uring& ring, uint32_t entries, const Fd& held = {});

}  // namespace crosvm
