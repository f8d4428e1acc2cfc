#include "devices/block/block_worker.h"

#include <cerrno>
#include <string_view>
#include <thread>
#include <utility>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

using Kind = DiskRequest::Kind;

/// What helps against an error of the host.
std::string_view fix_for(int error) {
  switch (error) {
    case ENOSPC:
      return "; make room on its file system";
    case EDQUOT:
      return "; the quota there is used up: raise it, or remove what is not needed";
    case EFBIG:
      return "; it is larger than its file system or RLIMIT_FSIZE (ulimit -f) allows";
    case EIO:
      return "; the storage may be failing: see dmesg";
    default:
      return "";
  }
}

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::kRead:
      return "reading";
    case Kind::kWrite:
      return "writing";
    case Kind::kFlush:
      return "flushing";
    case Kind::kDiscard:
      return "discarding";
    case Kind::kExtent:
      return "looking at";
    case Kind::kWriteZeroes:
      break;
  }
  return "zeroing";
}

}  // namespace

BlockWorker::BlockWorker(EventLoop& loop, std::unique_ptr<Disk> disk, const BlockRules& rules,
                         std::string object, Broken broken)
    : loop_(loop),
      rules_(rules),
      object_(std::move(object)),
      broken_(std::move(broken)),
      disk_(std::move(disk)) {
  disk_->on_batch([this] { settle(); });
}

BlockWorker::~BlockWorker() {
  disarm_idle_flush();
  if (idle_flush_.running) rules_.flush_errors->end_untold(idle_flush_.flush);
}

Result<void> BlockWorker::start_queue(uint16_t index, Virtqueue queue) {
  return queues_.try_emplace(index, *this).first->second.start(std::move(queue));
}

void BlockWorker::stop_queue(uint16_t index, StopDone done) {
  auto found = queues_.find(index);
  CHECK(found != queues_.end());
  found->second.stop(std::move(done));
}

void BlockWorker::settle() {
  for (auto& [index, queue] : queues_) queue.settle();
  tell_paused();
}

// ---- size

void BlockWorker::pause(std::function<void()> paused) {
  CHECK(!pausing_);
  pausing_ = true;
  paused_ = std::move(paused);
  tell_paused();
}

void BlockWorker::tell_paused() {
  if (!paused_ || idle_flush_.running) return;
  for (const auto& [index, queue] : queues_) {
    if (queue.in_flight() > 0) return;
  }
  later(std::exchange(paused_, nullptr));
}

void BlockWorker::resume() {
  CHECK(pausing_ && !paused_);
  pausing_ = false;
  for (auto& [index, queue] : queues_) queue.process_soon();
}

void BlockWorker::resize(uint64_t bytes, std::function<void(Result<void>)> done) {
  CHECK(pausing_ && !paused_);
  // Told from within the disk's own work, in which it is not to be used.
  disk_->resize(bytes, [this, bytes, done = std::move(done)](const Result<void>& result) {
    if (result) rules_.size = bytes;
    later([done, result] { done(result); });
  });
}

void BlockWorker::later(std::function<void()> work) {
  loop_.post([alive = std::weak_ptr(alive_), work = std::move(work)] {
    if (!alive.expired()) work();
  });
}

// ---- the host's cache

void BlockWorker::log_error(const DiskRequest& request, int error) {
  if (!limit_.allows()) return;
  const std::string doing = request.kind == Kind::kFlush
                                ? "flushing"
                                : format_text("{} {} bytes at {:#x} of", name_of(request.kind),
                                              request.length, request.offset);
  log::warn("{}{}", Error::from_errno(doing, object_, error).what(), fix_for(error));
}

void BlockWorker::flush_begins(BlockRequest& request) {
  disarm_idle_flush();
  request.flush = rules_.flush_errors->begin();
}

std::optional<int> BlockWorker::io_done(BlockQueue& queue, BlockRequest& request, int error) {
  if (error != 0) log_error(request, error);
  const bool is_flush = request.kind == Kind::kFlush;
  const bool unflushed = is_flush ? error != 0 : request.kind != Kind::kRead;
  if (unflushed) arm_idle_flush();
  if (!is_flush) return error;
  if (error != 0) rules_.flush_errors->failed(error);
  return rules_.flush_errors->end(
      request.flush, error,
      [this, thread = std::this_thread::get_id(), &queue, &request](int told) {
        // On a thread of its own it is part of a batch, which is settled.
        if (std::this_thread::get_id() == thread) return queue.flush_done(request, told);
        later([this, &queue, &request, told] {
          queue.flush_done(request, told);
          settle();
        });
      });
}

void BlockWorker::arm_idle_flush() {
  if (idle_timer_ == 0) idle_timer_ = loop_.after(rules_.flush_after, [this] { flush_idle(); });
}

void BlockWorker::disarm_idle_flush() {
  if (idle_timer_ != 0) loop_.cancel(std::exchange(idle_timer_, 0));
}

void BlockWorker::flush_idle() {
  idle_timer_ = 0;
  if (pausing_) return arm_idle_flush();
  if (std::exchange(idle_flush_.running, true)) return;
  idle_flush_.flush = rules_.flush_errors->begin();
  disk_->start(idle_flush_);
  disk_->submit();
}

void BlockWorker::IdleFlush::disk_done(int error) {
  running = false;
  if (error != 0) {
    worker_.log_error(*this, error);
    worker_.rules_.flush_errors->failed(error);
  }
  worker_.rules_.flush_errors->end_untold(flush);
}

}  // namespace crosvm
