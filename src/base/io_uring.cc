#include "base/io_uring.h"

#include <liburing.h>

#include "base/restricted_ring.h"

namespace crosvm {

struct IoUring::State {
  ~State() {
    descriptor.release();  // the ring's own
    if (ready) io_uring_queue_exit(&ring);
  }

  /// A free entry, or null when the queue is full or the completion queue could overflow.
  io_uring_sqe* next() {
    return in_flight < ring.cq.ring_entries ? io_uring_get_sqe(&ring) : nullptr;
  }
  bool queued(io_uring_sqe* entry, uint64_t token) {
    io_uring_sqe_set_data64(entry, token);  // the prepare functions leave it alone
    ++in_flight;
    return true;
  }

  io_uring ring = {};
  bool ready = false;
  uint32_t in_flight = 0;
  Fd descriptor;
};

IoUring::IoUring(std::unique_ptr<State> state) : state_(std::move(state)) {}
IoUring::IoUring(IoUring&&) noexcept = default;
IoUring& IoUring::operator=(IoUring&&) noexcept = default;
IoUring::~IoUring() = default;

Result<IoUring> IoUring::create(uint32_t entries, const Fd& held) {
  auto state = std::make_unique<State>();
  TRY(set_up_restricted_ring(state->ring, entries, held));
  state->ready = true;
  state->descriptor = Fd(state->ring.ring_fd);
  return IoUring(std::move(state));
}

bool IoUring::readv(const Fd& fd, const iovec* buffers, uint32_t count, uint64_t offset,
                    uint64_t token, int flags) {
  io_uring_sqe* entry = state_->next();
  if (!entry) return false;
  io_uring_prep_readv2(entry, fd.get(), buffers, count, offset, flags);
  return state_->queued(entry, token);
}

bool IoUring::writev(const Fd& fd, const iovec* buffers, uint32_t count, uint64_t offset,
                     uint64_t token, int flags) {
  io_uring_sqe* entry = state_->next();
  if (!entry) return false;
  io_uring_prep_writev2(entry, fd.get(), buffers, count, offset, flags);
  return state_->queued(entry, token);
}

bool IoUring::fsync(const Fd& fd, bool data_only, uint64_t token) {
  io_uring_sqe* entry = state_->next();
  if (!entry) return false;
  io_uring_prep_fsync(entry, fd.get(), data_only ? IORING_FSYNC_DATASYNC : 0);
  return state_->queued(entry, token);
}

bool IoUring::fallocate(const Fd& fd, int mode, uint64_t offset, uint64_t length, uint64_t token) {
  io_uring_sqe* entry = state_->next();
  if (!entry) return false;
  io_uring_prep_fallocate(entry, fd.get(), mode, static_cast<off_t>(offset),
                          static_cast<off_t>(length));
  return state_->queued(entry, token);
}

Result<void> IoUring::submit() {
  while (io_uring_sq_ready(&state_->ring) > 0) {
    int result = io_uring_submit(&state_->ring);
    if (result == -EINTR) continue;
    // EAGAIN and EBUSY: no memory for requests at the moment; what is left goes with the next call.
    if (result < 0) return fail(Error::from_errno("submitting to", "an io_uring", -result));
  }
  return {};
}

bool IoUring::reap(Completion& completion) {
  io_uring_cqe* entry = nullptr;
  unsigned head = 0;
  io_uring_for_each_cqe(&state_->ring, head, entry) {
    completion = {.token = entry->user_data, .result = entry->res};
    io_uring_cqe_seen(&state_->ring, entry);
    --state_->in_flight;
    return true;
  }
  return false;
}

uint32_t IoUring::in_flight() const { return state_->in_flight; }

const Fd& IoUring::descriptor() const { return state_->descriptor; }

}  // namespace crosvm
