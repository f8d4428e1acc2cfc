#include "devices/block/block_queue.h"

#include <linux/virtio_blk.h>

#include <utility>

#include "devices/block/block_worker.h"

namespace crosvm {

Result<void> BlockQueue::start(Virtqueue queue) {
  CHECK(!queue_);
  queue_.emplace(std::move(queue));
  auto listening = queue_->listen(
      worker_.loop(), [this] { return process(); },
      [this](Error error) { worker_.queue_broke(error); });
  if (!listening) queue_.reset();
  return listening;
}

void BlockQueue::stop(StopDone done) {
  CHECK(queue_ && !stopping_);
  queue_->unlisten();
  stopping_ = std::move(done);
  settle();
}

Result<void> BlockQueue::process() {
  processing_ = true;
  Result<bool> more = true;
  while (more && *more && !stopping_ && !worker_.pausing()) {
    more = drain(queue_->size());
    // Some of the requests end here at once, and make room.
    worker_.disk().submit();
    if (full_ && queue_->in_flight() == queue_->size()) break;
  }
  processing_ = false;
  settle();
  if (!more) return fail(std::move(more).error());
  return {};
}

/// Starts at most `most` requests. Whether there may be more to pop.
Result<bool> BlockQueue::drain(uint32_t most) {
  for (uint32_t popped = 0; popped < most; ++popped) {
    // A driver that offers the same buffers over and over gets no further than an honest one.
    full_ = queue_->in_flight() == queue_->size();
    if (full_) return true;
    auto chain = TRY(queue_->pop());
    if (!chain) return false;
    start_request(*std::move(chain));
  }
  return true;
}

BlockRequest& BlockQueue::take_request() {
  if (free_.empty()) {
    requests_.push_back(std::make_unique<BlockRequest>(*this));
    free_.push_back(requests_.back().get());
  }
  BlockRequest& request = *free_.back();
  free_.pop_back();
  return request;
}

void BlockQueue::start_request(DescriptorChain chain) {
  BlockRequest& request = take_request();
  if (auto status = request.begin(std::move(chain), worker_.rules())) {
    return finish(request, *status);
  }
  if (request.kind == DiskRequest::Kind::kFlush) worker_.flush_begins(request);
  worker_.disk().start(request);
}

void BlockQueue::io_done(BlockRequest& request, int error) {
  if (error == 0 && request.next_segment()) return worker_.disk().start(request);
  const bool has_changed =
      request.kind != DiskRequest::Kind::kRead && request.kind != DiskRequest::Kind::kFlush;
  if (error == 0 && has_changed && worker_.rules().write_through) {
    request.become_flush();
    worker_.flush_begins(request);
    return worker_.disk().start(request);
  }
  const std::optional<int> told = worker_.io_done(*this, request, error);
  if (told) finish(request, *told == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
}

void BlockQueue::flush_done(BlockRequest& request, int error) {
  finish(request, error == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
}

void BlockQueue::finish(BlockRequest& request, uint8_t status) {
  uint32_t written = 0;
  DescriptorChain chain = request.end(status, written);
  queue_->push_used(std::move(chain), written);
  free_.push_back(&request);
}

void BlockQueue::settle() {
  if (!queue_ || processing_) return;
  queue_->signal_used_if_needed();
  if (stopping_) {
    if (queue_->in_flight() > 0) return;
    RingPosition position = queue_->position();
    queue_.reset();
    full_ = false;
    return std::exchange(stopping_, nullptr)(position);
  }
  if (full_ && queue_->in_flight() < queue_->size()) {
    full_ = false;
    queue_->process_soon();
  }
}

}  // namespace crosvm
