#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "devices/block/block_request.h"
#include "virtio/virtio_device.h"
#include "virtio/virtqueue.h"

namespace crosvm {

class BlockWorker;

/// One requestq of a disk, and its requests. They end in any order.
class BlockQueue {
 public:
  explicit BlockQueue(BlockWorker& worker) : worker_(worker) {}

  /// Takes a queue and listens to it. Errors: those of Virtqueue::listen.
  Result<void> start(Virtqueue queue);
  /// As VirtioDevice::stop_queue.
  void stop(StopDone done);
  /// Requests of the driver that have not come back to it.
  size_t in_flight() const { return queue_ ? queue_->in_flight() : 0; }
  /// There may be requests that were left in the ring.
  void process_soon() {
    if (queue_ && !stopping_) queue_->process_soon();
  }
  /// A batch of requests has ended: interrupts the driver, goes on with what had to wait, and stops
  /// if that was asked for.
  void settle();

  /// `request`, one of this queue's, was done by the disk; `error` is an errno or 0.
  void io_done(BlockRequest& request, int error);
  /// So was a flush, and the end of others had to be waited for.
  void flush_done(BlockRequest& request, int error);

 private:
  Result<void> process();
  Result<bool> drain(uint32_t most);
  void start_request(DescriptorChain chain);
  void finish(BlockRequest& request, uint8_t status);
  BlockRequest& take_request();

  BlockWorker& worker_;
  std::optional<Virtqueue> queue_;
  std::vector<std::unique_ptr<BlockRequest>> requests_;  // all there are
  std::vector<BlockRequest*> free_;
  bool processing_ = false;
  bool full_ = false;  // as many requests in flight as the queue has elements: more may wait
  StopDone stopping_;  // set while the queue is to stop
};

}  // namespace crosvm
