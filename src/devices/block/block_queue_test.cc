#include "devices/block/block_queue.h"

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include "devices/block/block_test_disk.h"
#include "devices/block/block_worker.h"
#include "virtio/rig/queue_bench.h"

namespace crosvm {
namespace {

using namespace block_test;

/// A disk that ends requests when it is told to, or all with each submit.
class HeldDisk final : public Disk {
 public:
  uint64_t size() const override { return 1 << 20; }
  DiskTopology topology() const override { return {}; }
  void start(DiskRequest& request) override { held_.push_back(&request); }
  void submit() override {
    if (at_once) end_all();
  }
  void on_batch(std::function<void()> told) override { told_ = std::move(told); }

  void end_all() {
    if (held_.empty()) return;
    for (DiskRequest* request : std::exchange(held_, {})) {
      request->disk_done(0);
      ++ended;
    }
    if (refill) refill();
    told_();
  }
  size_t held() const { return held_.size(); }

  bool at_once = false;
  unsigned ended = 0;
  std::function<void()> refill;  // after a batch

 private:
  std::vector<DiskRequest*> held_;
  std::function<void()> told_;
};

class BlockQueueTest : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr uint16_t kSize = 4;

  BlockQueueTest() {
    auto disk = std::make_unique<HeldDisk>();
    disk_ = disk.get();
    worker_ = std::make_unique<BlockWorker>(*loop_, std::move(disk),
                                            BlockRules{.size = disk_->size()}, "disk.img",
                                            [](const std::string& why) { ADD_FAILURE() << why; });
    auto queue = Virtqueue::create(bench_.memory().guest(), bench_.setup());
    EXPECT_TRUE(worker_->start_queue(0, std::move(*queue)));
    turn();
  }
  ~BlockQueueTest() override {
    disk_->refill = nullptr;
    disk_->end_all();
  }
  void turn() { EXPECT_TRUE(loop_->run_once({})); }
  /// As many flushes as the ring has room for.
  void fill() {
    while (bench_.driver().try_used()) continue;
    while (bench_.driver().outstanding() < kSize && sent_ < kMost) {
      ++sent_;
      bench_.driver().send({header(VIRTIO_BLK_T_FLUSH), writable(1)});
    }
  }

  static constexpr unsigned kMost = 1000;
  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
  QueueBench bench_{{.size = kSize, .packed = GetParam()}};
  HeldDisk* disk_ = nullptr;
  std::unique_ptr<BlockWorker> worker_;
  unsigned sent_ = 0;
};

INSTANTIATE_TEST_SUITE_P(, BlockQueueTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Packed" : "Split"; });

TEST_P(BlockQueueTest, AFullQueueGoesOnWithoutAKick) {
  fill();
  turn();
  EXPECT_EQ(disk_->held(), kSize);
  disk_->refill = [this] {
    fill();
    drain_eventfd(bench_.driver().kick_descriptor());
  };
  disk_->end_all();
  turn();
  EXPECT_EQ(disk_->held(), kSize);
}

TEST_P(BlockQueueTest, ADriverThatKeepsItFullLeavesTheLoopToOthers) {
  fill();
  turn();
  ASSERT_EQ(disk_->held(), kSize);
  disk_->refill = [this] { fill(); };
  disk_->end_all();
  disk_->at_once = true;
  disk_->ended = 0;
  turn();
  EXPECT_LE(disk_->ended, 3U * kSize);  // by a kick, by what was left, by both together
  for (int i = 0; i < 1000 && disk_->ended < kMost - kSize; ++i) turn();
  EXPECT_EQ(disk_->ended, kMost - kSize) << "all but the first";
}

}  // namespace
}  // namespace crosvm
