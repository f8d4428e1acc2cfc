#include "disk/threaded_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include "base/start_error.h"

namespace crosvm {
namespace {

using Kind = FileOperation::Kind;

int64_t or_errno(int64_t result) { return result < 0 ? -errno : result; }

/// The blocking system call.
int64_t perform(const Fd& file, const FileOperation& operation) {
  auto count = static_cast<int>(operation.buffers.size());
  auto offset = static_cast<off_t>(operation.offset);
  switch (operation.kind) {
    case Kind::kRead:
      return or_errno(
          ::preadv2(file.get(), operation.buffers.data(), count, offset, operation.flags));
    case Kind::kWrite:
      return or_errno(
          ::pwritev2(file.get(), operation.buffers.data(), count, offset, operation.flags));
    case Kind::kSync:
      return or_errno(::fdatasync(file.get()));
    case Kind::kAllocate:
      return or_errno(
          ::fallocate(file.get(), operation.flags, offset, static_cast<off_t>(operation.length)));
    case Kind::kDiscardBlocks: {
      std::array<uint64_t, 2> range = {operation.offset, operation.length};
      return or_errno(::ioctl(file.get(), BLKDISCARD, range.data()));
    }
    case Kind::kTruncate:
      return or_errno(::ftruncate(file.get(), static_cast<off_t>(operation.length)));
    case Kind::kSeek:
      return or_errno(::lseek(file.get(), offset, operation.flags));
  }
  CHECK(false);
}

}  // namespace

ThreadedFile::ThreadedFile(EventLoop& loop, std::shared_ptr<const Fd> file, Fd wake)
    : loop_(loop), file_(std::move(file)), wake_(std::move(wake)) {
  // A direct read that may not wait for pages waits for the device nonetheless.
  int flags = ::fcntl(file_->get(), F_GETFL);
  cached_reads_ = flags >= 0 && (flags & O_DIRECT) == 0;
}

Result<std::unique_ptr<ThreadedFile>> ThreadedFile::create(EventLoop& loop,
                                                           std::shared_ptr<const Fd> file) {
  std::unique_ptr<ThreadedFile> made(new ThreadedFile(loop, std::move(file), TRY(make_eventfd())));
  made->watch_ = TRY(loop.watch(made->wake_, EPOLLIN, [self = made.get()](uint32_t) {
    drain_eventfd(self->wake_);
    self->tell_ended();
  }));
  TRY(made->start_threads(1));
  return made;
}

ThreadedFile::~ThreadedFile() {
  loop_.unwatch(watch_);
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    todo_.clear();
  }
  more_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadedFile::queue(const FileOperation& operation) { queued_.push_back(operation); }

bool ThreadedFile::read_cached(const FileOperation& operation) {
  if (operation.kind != Kind::kRead || !cached_reads_) return false;
  ssize_t result =
      ::preadv2(file_->get(), operation.buffers.data(), static_cast<int>(operation.buffers.size()),
                static_cast<off_t>(operation.offset), operation.flags | RWF_NOWAIT);
  if (result < 0) {
    // Anything but "not cached" is left to the call that may wait, which finds it again.
    if (errno == EOPNOTSUPP && operation.flags == 0) cached_reads_ = false;
    return false;
  }
  told_next_.push_back({operation.done, result});
  return true;
}

Result<void> ThreadedFile::start_threads(size_t wanted) {
  try {
    while (threads_.size() < std::min(wanted, kThreads)) {
      threads_.emplace_back([this] { work(); });
    }
  } catch (const std::system_error& error) {  // the one way that std::thread tells it
    return fail(start_error("starting", "a thread for disk I/O", error.code().value()));
  }
  return {};
}

void ThreadedFile::give_to_threads(const std::vector<FileOperation>& operations) {
  if (operations.empty()) return;
  size_t wanted = 0;
  {
    std::lock_guard lock(mutex_);
    todo_.insert(todo_.end(), operations.begin(), operations.end());
    wanted = threads_.size() + (todo_.size() > idle_ ? todo_.size() - idle_ : 0);
  }
  (void)start_threads(wanted);  // with fewer it takes longer
  operations.size() == 1 ? more_.notify_one() : more_.notify_all();
}

void ThreadedFile::submit() {
  if (working_) return;  // the call further out goes on with it
  working_ = true;
  bool told = false;
  while (!queued_.empty()) {
    std::vector<FileOperation> waiting;
    for (const FileOperation& operation : std::exchange(queued_, {})) {
      if (!read_cached(operation)) waiting.push_back(operation);
    }
    give_to_threads(waiting);
    for (const Ended& ended : std::exchange(told_next_, {})) {
      ended.done->file_done(ended.result);
      told = true;
    }
  }
  working_ = false;
  if (told) tell_batch();
}

void ThreadedFile::tell_ended() {
  std::vector<Ended> ended;
  {
    std::lock_guard lock(mutex_);
    ended.swap(ended_);
  }
  if (ended.empty()) return;
  for (const Ended& one : ended) one.done->file_done(one.result);
  submit();
  tell_batch();
}

void ThreadedFile::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    more_.wait(lock, [this] { return stopping_ || !todo_.empty(); });
    --idle_;
    if (stopping_) return;
    FileOperation operation = todo_.front();
    todo_.pop_front();
    lock.unlock();
    int64_t result = perform(*file_, operation);
    lock.lock();
    ended_.push_back({operation.done, result});
    if (ended_.size() == 1) signal_eventfd(wake_);
  }
}

}  // namespace crosvm
