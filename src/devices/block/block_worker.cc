#include "devices/block/block_worker.h"

#include <utility>

#include "base/format.h"
#include "base/log.h"

namespace crosvm {
namespace {

using Kind = DiskRequest::Kind;

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

BlockWorker::~BlockWorker() { disarm_idle_flush(); }

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
}

void BlockWorker::io_done(const DiskRequest& request, int error) {
  if (error != 0 && limit_.allows()) {
    std::string doing = format_text("{} {} bytes at {:#x} of", name_of(request.kind),
                                    request.length, request.offset);
    log::warn("{}", Error::from_errno(doing, object_, error).what());
  }
  bool unflushed = request.kind == Kind::kFlush ? error != 0 : request.kind != Kind::kRead;
  if (unflushed) arm_idle_flush();
}

void BlockWorker::arm_idle_flush() {
  if (idle_timer_ == 0) idle_timer_ = loop_.after(rules_.flush_after, [this] { flush_idle(); });
}

void BlockWorker::disarm_idle_flush() {
  if (idle_timer_ != 0) loop_.cancel(std::exchange(idle_timer_, 0));
}

void BlockWorker::flush_idle() {
  idle_timer_ = 0;
  if (std::exchange(idle_flush_.running, true)) return;
  disk_->start(idle_flush_);
  disk_->submit();
}

void BlockWorker::IdleFlush::disk_done(int error) {
  running = false;
  if (error != 0 && worker_.limit_.allows()) {
    log::warn("{}", Error::from_errno("flushing", worker_.object_, error).what());
  }
}

}  // namespace crosvm
