#include "disk/uring_queue.h"

#include <poll.h>

#include <chrono>

#include "base/log.h"

namespace crosvm {
namespace {

using Kind = FileOperation::Kind;
constexpr auto kRetry = std::chrono::milliseconds(1);

uint64_t token_of(FileDone* done) { return reinterpret_cast<uintptr_t>(done); }
FileDone& done_of(uint64_t token) { return *reinterpret_cast<FileDone*>(token); }

}  // namespace

UringQueue::UringQueue(EventLoop& loop, IoUring ring) : loop_(loop), ring_(std::move(ring)) {}

Result<std::shared_ptr<UringQueue>> UringQueue::create(EventLoop& loop, IoUring ring) {
  std::shared_ptr<UringQueue> made(new UringQueue(loop, std::move(ring)));
  made->watch_ = TRY(loop.watch(made->ring_.descriptor(), EPOLLIN,
                                [self = made.get()](uint32_t) { self->submit(); }));
  return made;
}

UringQueue::~UringQueue() {
  loop_.unwatch(watch_);
  loop_.cancel(retry_);
  drain();
}

void UringQueue::leave(User& user) {
  waiting_.clear();
  drain();
  std::erase(users_, &user);
}

void UringQueue::drain() {
  while (ring_.in_flight() > 0) {  // the kernel may still be writing to their buffers
    (void)ring_.submit();
    pollfd completions{.fd = ring_.descriptor().get(), .events = POLLIN, .revents = 0};
    (void)::poll(&completions, 1, 10);
    IoUring::Completion completion;
    while (ring_.reap(completion)) continue;
  }
}

void UringQueue::queue(const Fd& file, const FileOperation& operation) {
  if (waiting_.empty() && give(file, operation)) return;
  waiting_.push_back({&file, operation});
}

bool UringQueue::give(const Fd& file, const FileOperation& operation) {
  uint64_t token = token_of(operation.done);
  auto count = static_cast<uint32_t>(operation.buffers.size());
  switch (operation.kind) {
    case Kind::kRead:
      return ring_.readv(file, operation.buffers.data(), count, operation.offset, token,
                         operation.flags);
    case Kind::kWrite:
      return ring_.writev(file, operation.buffers.data(), count, operation.offset, token,
                          operation.flags);
    case Kind::kSync:
      return ring_.fsync(file, true, token);
    case Kind::kAllocate:
      return ring_.fallocate(file, operation.flags, operation.offset, operation.length, token);
    case Kind::kDiscardBlocks:
    case Kind::kTruncate:
    case Kind::kSeek:
      break;
  }
  CHECK(false);  // goes to a thread
}

void UringQueue::give_waiting() {
  while (!waiting_.empty() && give(*waiting_.front().file, waiting_.front().operation)) {
    waiting_.pop_front();
  }
}

bool UringQueue::give_to_kernel() {
  auto given = ring_.submit();
  if (given) return true;
  // The kernel is short of memory for the moment: what is queued stays so.
  if (limit_.allows()) log::warn("{}; trying again", given.error().what());
  loop_.cancel(retry_);
  retry_ = loop_.after(kRetry, [this] { submit(); });
  return false;
}

bool UringQueue::reap_all() {
  bool any = false;
  IoUring::Completion completion;
  while (ring_.reap(completion)) {
    any = true;
    done_of(completion.token).file_done(completion.result);
  }
  return any;
}

void UringQueue::submit() {
  if (working_) return;  // the call further out goes on with it
  working_ = true;
  bool told = false;
  bool again = true;
  while (again) {
    bool ended = false;
    for (User* user : users_) ended |= user->submit_rest();
    give_waiting();
    bool given = give_to_kernel();
    // Reads of cached pages, and most writes, are done by now. What they make way for, or queue to
    // go on with, is given at once, unless the kernel takes nothing at the moment.
    ended |= reap_all();
    told |= ended;
    again = ended && given;
  }
  working_ = false;
  if (!told) return;
  for (User* user : users_) user->batch_ended();
}

}  // namespace crosvm
