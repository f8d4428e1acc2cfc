#include "disk/uring_file.h"

#include <poll.h>

#include <chrono>

#include "base/log.h"
#include "disk/threaded_file.h"

namespace crosvm {
namespace {

using Kind = FileOperation::Kind;
constexpr auto kRetry = std::chrono::milliseconds(1);

uint64_t token_of(FileDone* done) { return reinterpret_cast<uintptr_t>(done); }
FileDone& done_of(uint64_t token) { return *reinterpret_cast<FileDone*>(token); }

}  // namespace

UringFile::UringFile(EventLoop& loop, const Fd& file, IoUring ring)
    : loop_(loop), file_(file), ring_(std::move(ring)) {}

Result<std::unique_ptr<UringFile>> UringFile::create(EventLoop& loop, const Fd& file,
                                                     IoUring ring) {
  std::unique_ptr<UringFile> made(new UringFile(loop, file, std::move(ring)));
  made->watch_ = TRY(loop.watch(made->ring_.descriptor(), EPOLLIN,
                                [self = made.get()](uint32_t) { self->submit(); }));
  return made;
}

UringFile::~UringFile() {
  loop_.unwatch(watch_);
  loop_.cancel(retry_);
  while (ring_.in_flight() > 0) {  // the kernel may still be writing to their buffers
    (void)ring_.submit();
    pollfd completions{.fd = ring_.descriptor().get(), .events = POLLIN, .revents = 0};
    (void)::poll(&completions, 1, 10);
    IoUring::Completion completion;
    while (ring_.reap(completion)) continue;
  }
}

void UringFile::queue(const FileOperation& operation) {
  if (operation.kind == Kind::kDiscardBlocks) return discard_on_thread(operation);
  if (waiting_.empty() && give(operation)) return;
  waiting_.push_back(operation);
}

bool UringFile::give(const FileOperation& operation) {
  uint64_t token = token_of(operation.done);
  auto count = static_cast<uint32_t>(operation.buffers.size());
  switch (operation.kind) {
    case Kind::kRead:
      return ring_.readv(file_, operation.buffers.data(), count, operation.offset, token,
                         operation.flags);
    case Kind::kWrite:
      return ring_.writev(file_, operation.buffers.data(), count, operation.offset, token,
                          operation.flags);
    case Kind::kSync:
      return ring_.fsync(file_, true, token);
    case Kind::kAllocate:
      return ring_.fallocate(file_, operation.flags, operation.offset, operation.length, token);
    case Kind::kDiscardBlocks:
      break;
  }
  CHECK(false);  // goes to a thread
}

void UringFile::discard_on_thread(const FileOperation& operation) {
  if (!threads_) {
    auto made = ThreadedFile::create(loop_, file_);
    if (!made) {
      if (limit_.allows()) log::warn("discarding blocks: {}", made.error().what());
      return refused_.push_back(operation.done);
    }
    threads_ = std::move(*made);
    threads_->on_batch([this] {
      submit();
      tell_batch();
    });
  }
  threads_->queue(operation);
}

void UringFile::give_waiting() {
  while (!waiting_.empty() && give(waiting_.front())) waiting_.pop_front();
}

bool UringFile::give_to_kernel() {
  auto given = ring_.submit();
  if (given) return true;
  // The kernel is short of memory for the moment: what is queued stays so.
  if (limit_.allows()) log::warn("{}; trying again", given.error().what());
  loop_.cancel(retry_);
  retry_ = loop_.after(kRetry, [this] { submit(); });
  return false;
}

bool UringFile::reap_all() {
  bool any = !refused_.empty();
  for (FileDone* done : std::exchange(refused_, {})) done->file_done(-EAGAIN);
  IoUring::Completion completion;
  while (ring_.reap(completion)) {
    any = true;
    done_of(completion.token).file_done(completion.result);
  }
  return any;
}

void UringFile::submit() {
  if (working_) return;  // the call further out goes on with it
  working_ = true;
  bool told = false;
  bool again = true;
  while (again) {
    if (threads_) threads_->submit();
    give_waiting();
    bool given = give_to_kernel();
    // Reads of cached pages, and most writes, are done by now. What they make way for, or queue to
    // go on with, is given at once, unless the kernel takes nothing at the moment.
    bool ended = reap_all();
    told |= ended;
    again = ended && given;
  }
  working_ = false;
  if (told) tell_batch();
}

}  // namespace crosvm
