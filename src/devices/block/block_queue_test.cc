#include "devices/block/block_queue.h"

#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <array>
#include <cerrno>
#include <optional>
#include <thread>

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
  void start(DiskRequest& request) override {
    held_.push_back(&request);
    flushes += request.kind == DiskRequest::Kind::kFlush;
  }
  void submit() override {
    if (at_once) end_all();
  }
  void on_batch(std::function<void()> told) override { told_ = std::move(told); }

  void end_all() {
    if (held_.empty()) return;
    for (DiskRequest* request : std::exchange(held_, {})) {
      const bool fails = request->kind == DiskRequest::Kind::kFlush &&
                         (fails_flushes || (fails_flush > 0 && --fails_flush == 0));
      request->disk_done(fails ? EIO : 0);
      ++ended;
    }
    if (refill) refill();
    told_();
  }
  size_t held() const { return held_.size(); }

  bool at_once = false;
  unsigned flushes = 0;  // started
  unsigned ended = 0;
  bool fails_flushes = false;
  unsigned fails_flush = 0;      // the how manieth to end, or none
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
  /// How often the disk was asked to flush, with nothing else to do, before the request came back.
  unsigned flushes_of(const std::vector<RigBuffer>& request) {
    const unsigned before = disk_->flushes;
    bench_.driver().send(request);
    turn();
    while (disk_->held() > 0) {
      EXPECT_FALSE(bench_.driver().try_used());
      disk_->end_all();
    }
    const auto used = bench_.driver().try_used();
    EXPECT_TRUE(used && used->last_byte() == VIRTIO_BLK_S_OK);
    return disk_->flushes - before;
  }
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

// Virtio 1.3 §5.2.6.2: nobody else would flush.
TEST_P(BlockQueueTest, ADriverWithoutFlushIsToldWhenWritesAreStable) {
  const Range range{.sector = 0, .sectors = 1, .flags = 0};
  const std::vector<RigBuffer> write = {header(VIRTIO_BLK_T_OUT), readable(std::string(512, 'x')),
                                        writable(1)};
  const std::vector<RigBuffer> zero = {header(VIRTIO_BLK_T_WRITE_ZEROES), readable(range),
                                       readable(range), writable(1)};
  const std::vector<RigBuffer> discard = {header(VIRTIO_BLK_T_DISCARD), readable(range),
                                          writable(1)};
  const std::vector<RigBuffer> read = {header(VIRTIO_BLK_T_IN), writable(512), writable(1)};
  for (const auto& request : {write, zero, discard, read}) EXPECT_EQ(flushes_of(request), 0u);
  worker_->set_write_through(true);
  for (const auto& request : {write, zero, discard}) EXPECT_EQ(flushes_of(request), 1u);
  EXPECT_EQ(flushes_of(read), 0u);
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

/// Of a disk whose driver writes and does not flush; the time until then is short here.
class IdleFlushTest : public ::testing::Test {
 protected:
  static constexpr auto kFlushAfter = std::chrono::milliseconds(50);

  IdleFlushTest() {
    auto disk = std::make_unique<HeldDisk>();
    disk_ = disk.get();
    disk_->at_once = true;
    worker_ = std::make_unique<BlockWorker>(
        *loop_, std::move(disk), BlockRules{.size = disk_->size(), .flush_after = kFlushAfter},
        "disk.img", [](const std::string& why) { ADD_FAILURE() << why; });
    EXPECT_TRUE(worker_->start_queue(
        0, std::move(*Virtqueue::create(bench_.memory().guest(), bench_.setup()))));
  }
  int send(const std::vector<RigBuffer>& buffers) {
    bench_.driver().send(buffers);
    const unsigned before = disk_->ended;
    while (disk_->ended == before) EXPECT_TRUE(loop_->run_once(std::chrono::seconds(10)));
    return status();
  }
  /// Of a request that has come back.
  int status() {
    auto used = bench_.driver().try_used();
    EXPECT_TRUE(used);
    return used ? used->last_byte() : -1;
  }
  int flush() { return send({header(VIRTIO_BLK_T_FLUSH), writable(1)}); }
  void write() { send({header(VIRTIO_BLK_T_OUT), readable(std::string(512, 'x')), writable(1)}); }
  /// Turns the loop for a while that is more than long enough.
  void wait() {
    const auto end = EventLoop::Clock::now() + 3 * kFlushAfter;
    while (EventLoop::Clock::now() < end) {
      EXPECT_TRUE(loop_->run_once(std::chrono::milliseconds(10)));
    }
  }

  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
  QueueBench bench_{{.size = 4}};
  HeldDisk* disk_ = nullptr;
  std::unique_ptr<BlockWorker> worker_;
};

TEST_F(IdleFlushTest, IsAMinuteUnlessATestSaysOtherwise) {
  EXPECT_EQ(BlockRules{}.flush_after, std::chrono::minutes(1));
}

TEST_F(IdleFlushTest, ComesOnceAfterTheFirstWrite) {
  wait();
  EXPECT_EQ(disk_->flushes, 0U);
  write();
  write();
  wait();
  EXPECT_EQ(disk_->flushes, 1U);
  write();
  wait();
  EXPECT_EQ(disk_->flushes, 2U) << "the next write arms it again";
}

TEST_F(IdleFlushTest, AReadDoesNotArmItAndAFlushOfTheDriverDisarmsIt) {
  send({header(VIRTIO_BLK_T_IN), writable(512), writable(1)});
  wait();
  EXPECT_EQ(disk_->flushes, 0U);
  write();
  send({header(VIRTIO_BLK_T_FLUSH), writable(1)});
  wait();
  EXPECT_EQ(disk_->flushes, 1U) << "the driver's";
}

// The host takes the bytes for written once it has told of it.
TEST_F(IdleFlushTest, ItsFailureIsToldByTheDriversNextFlush) {
  write();
  disk_->fails_flushes = true;
  wait();
  EXPECT_EQ(disk_->flushes, 1U);
  disk_->fails_flushes = false;
  EXPECT_EQ(flush(), VIRTIO_BLK_S_IOERR);
  EXPECT_EQ(flush(), VIRTIO_BLK_S_OK);
}

TEST_F(IdleFlushTest, AFailureIsToldByEveryFlushUnderWay) {
  for (const bool failing_last : {false, true}) {
    SCOPED_TRACE(failing_last);
    disk_->at_once = false;
    for (int i = 0; i < 2; ++i) {
      bench_.driver().send({header(VIRTIO_BLK_T_FLUSH), writable(1)});
    }
    while (disk_->held() < 2) ASSERT_TRUE(loop_->run_once(std::chrono::seconds(10)));
    disk_->fails_flush = failing_last ? 2 : 1;
    disk_->end_all();
    EXPECT_EQ(status(), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(status(), VIRTIO_BLK_S_IOERR);
    disk_->at_once = true;
    EXPECT_EQ(flush(), VIRTIO_BLK_S_OK);
  }
}

/// Two workers of one open file, each on a loop of its own.
class FlushWorkersTest : public IdleFlushTest {
 protected:
  FlushWorkersTest() {
    worker_.reset();
    for (Worker& one : workers_) {
      auto disk = std::make_unique<HeldDisk>();
      one.disk = disk.get();
      one.worker =
          std::make_unique<BlockWorker>(*one.loop, std::move(disk), rules_, "disk.img",
                                        [](const std::string& why) { ADD_FAILURE() << why; });
      EXPECT_TRUE(one.worker->start_queue(
          0, std::move(*Virtqueue::create(one.bench.memory().guest(), one.bench.setup()))));
      one.bench.driver().send({header(VIRTIO_BLK_T_FLUSH), writable(1)});
      while (one.disk->held() == 0) EXPECT_TRUE(one.loop->run_once(std::chrono::seconds(10)));
    }
  }
  struct Worker {
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
    QueueBench bench{{.size = 4}};
    HeldDisk* disk = nullptr;
    std::unique_ptr<BlockWorker> worker;
    std::optional<int> status() {
      auto used = bench.driver().try_used();
      return used ? std::optional<int>(used->last_byte()) : std::nullopt;
    }
  };
  BlockRules rules_{.size = 1 << 20};
  std::array<Worker, 2> workers_;
};

// The kernel has told one of them, and it is the other that is heard of first.
TEST_F(FlushWorkersTest, NoneGoesWellWhileAnotherMayFail) {
  auto& [failing, first] = workers_;
  first.disk->end_all();
  EXPECT_EQ(first.status(), std::nullopt);
  failing.disk->fails_flushes = true;
  std::thread([&] { failing.disk->end_all(); }).join();  // as its own would
  EXPECT_EQ(failing.status(), VIRTIO_BLK_S_IOERR);
  EXPECT_TRUE(first.loop->run_once(std::chrono::seconds(10)));
  EXPECT_EQ(first.status(), VIRTIO_BLK_S_IOERR);
}

}  // namespace
}  // namespace crosvm
