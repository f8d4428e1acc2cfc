#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/log_limit.h"
#include "devices/block/block_queue.h"
#include "disk/disk.h"

namespace crosvm {

/// What serves some queues of a disk on one event loop.
class BlockWorker {
 public:
  using Broken = std::function<void(const std::string& why)>;

  /// `object` names the disk in logs. `broken` is called on the loop when the driver has broken a
  /// queue. The loop outlives the worker.
  BlockWorker(EventLoop& loop, std::unique_ptr<Disk> disk, const BlockRules& rules,
              std::string object, Broken broken);
  ~BlockWorker();

  /// As VirtioDevice::start_queue and stop_queue.
  Result<void> start_queue(uint16_t index, Virtqueue queue);
  void stop_queue(uint16_t index, StopDone done);

  /// Takes no further requests until `resume`. `paused` is called on the loop, not before this
  /// returns, once none is in flight. Not while it pauses already.
  void pause(std::function<void()> paused);
  void resume();
  /// Makes the disk `bytes` long, a multiple of the sector size; while it pauses. `done` is called
  /// on the loop, not before this returns. Errors: those of Disk::resize.
  void resize(uint64_t bytes, std::function<void(Result<void>)> done);

  /// As BlockRules says, from now on.
  void set_write_through(bool write_through) { rules_.write_through = write_through; }

  // For its queues.
  EventLoop& loop() { return loop_; }
  Disk& disk() { return *disk_; }
  const BlockRules& rules() const { return rules_; }
  bool pausing() const { return pausing_; }
  void queue_broke(const Error& error) { broken_(error.what()); }
  /// What has been written so far needs no other flush, unless this one fails.
  void flush_begins(BlockRequest& request);
  /// Logs an error; watches for writes that nobody flushes. Gives the error for the driver: of a
  /// flush also that of another, which it would not hear of. Nothing while others that may fail for
  /// it are under way: `queue` is told later.
  std::optional<int> io_done(BlockQueue& queue, BlockRequest& request, int error);

 private:
  /// What writes the disk's cache back when the driver does not ask for it.
  class IdleFlush final : public DiskRequest {
   public:
    explicit IdleFlush(BlockWorker& worker) : worker_(worker) { kind = Kind::kFlush; }
    void disk_done(int error) override;
    bool running = false;
    FlushErrors::Flush flush;

   private:
    BlockWorker& worker_;
  };
  void log_error(const DiskRequest& request, int error);
  void arm_idle_flush();
  void disarm_idle_flush();
  void flush_idle();
  void settle();
  void tell_paused();
  /// `work` on the loop, unless the worker has gone by then. From any thread.
  void later(std::function<void()> work);

  EventLoop& loop_;
  BlockRules rules_;
  const std::string object_;
  const Broken broken_;
  LogLimit limit_{"errors of disk I/O"};
  IdleFlush idle_flush_{*this};
  EventLoop::TimerId idle_timer_ = 0;  // 0: not armed
  std::map<uint16_t, BlockQueue> queues_;
  bool pausing_ = false;
  std::function<void()> paused_;  // to be told that nothing is in flight
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted to the loop
  std::unique_ptr<Disk> disk_;  // goes first: it may hold buffers of requests
};

}  // namespace crosvm
