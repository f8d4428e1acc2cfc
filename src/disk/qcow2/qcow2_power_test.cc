// A loss of power at any moment leaves a valid image with every flushed byte.

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/format.h"
#include "disk/qcow2/qcow2_rig.h"
#include "disk/qcow2/qemu_img.h"
#include "disk/sector_model.h"

namespace crosvm {
namespace {

using test::DiskEvent;
using test::kSector;
using test::MemoryFile;
using test::Qcow2Rig;
using test::QemuImg;
using test::SectorModel;
using test::TestRequest;
using Kind = DiskRequest::Kind;
using EventKind = DiskEvent::Kind;

constexpr uint64_t kMostSectors = 3000;
constexpr uint64_t kWorkedOn = 200;  // sectors, after the cut

/// Requests of whole sectors to a disk that is resized now and then; perhaps an internal snapshot
/// is there, which must not change.
class PowerCut {
 public:
  explicit PowerCut(uint64_t seed)
      : random_(seed),
        rig_(seed),
        model_(kWorkedOn + 1 + below(kMostSectors - kWorkedOn), kMostSectors) {
    options_.size = model_.sectors() * kSector;
    options_.cluster_size = 512ULL << below(8);
    if (below(5) == 0) options_.version = 2;
    if (options_.version == 3) options_.refcount_bits = 1U << below(7);
    options_.extended_l2 = options_.version == 3 && options_.cluster_size >= 16384 && below(2) == 0;
    const uint64_t kind = below(3);
    if (kind == 0) {
      make_backing(1 + below(kMostSectors));
      options_.backing_name = "below";
      options_.backing_format = "raw";
    }
    // A disk of version 2 with snapshots keeps its size.
    has_snapshot_ =
        kind == 1 && options_.version == 3 && options_.refcount_bits > 1 && QemuImg::is_there();
    rig_.limits = {.l2_bytes = 0, .block_bytes = 1 << 20};
  }

  void run() {
    rig_.make(options_);
    if (has_snapshot_) take_snapshot();
    rig_.open();
    const uint64_t steps = 20 + below(1500);
    for (uint64_t i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) step();
    cut_power();
    const Qcow2Report report = rig_.check();
    ASSERT_EQ(report.errors, 0u) << report.messages.front();
    rig_.open();
    const uint64_t sectors = rig_.disk->size() / kSector;
    ASSERT_TRUE(model_.may_have_sectors(sectors)) << sectors;
    for (uint64_t i = 0; i < sectors; ++i) expect_allowed(i);
    const std::string after(std::min(kWorkedOn, sectors) * kSector, 'x');
    ASSERT_EQ(rig_.write(0, after), 0);
    rig_.close();
    EXPECT_EQ(rig_.check(Qcow2Repair::kLeaks).errors, 0u);
    rig_.expect_clean();
    rig_.open();
    EXPECT_TRUE(rig_.read(0, after.size()) == after);
    for (uint64_t i = kWorkedOn; i < sectors; ++i) expect_allowed(i);
    rig_.close();
    if (has_snapshot_) expect_snapshot();
  }

 private:
  uint64_t below(uint64_t limit) { return random_() % limit; }

  void make_backing(uint64_t sectors) {
    std::vector<std::byte> bytes(sectors * kSector);
    for (uint64_t i = 0; i < sectors; ++i) {
      SectorModel::fill(std::span(bytes).subspan(i * kSector, kSector), next_);
      if (i < model_.sectors()) model_.adopt(i, next_);
      ++next_;
    }
    rig_.backing = std::make_unique<MemoryFile>();
    rig_.backing->set_bytes(std::move(bytes));
  }

  void cut_power() {
    rig_.is_dead = true;
    std::vector<std::byte> left = rig_.file.cut_power(random_);
    rig_.close();
    rig_.is_dead = false;
    rig_.file.set_bytes(std::move(left));
  }

  /// Of a disk with something in it.
  void take_snapshot() {
    rig_.open();
    for (int i = 0; i < 20; ++i) {
      change(Kind::kWrite, below(model_.sectors()), 1);
      drain();
    }
    rig_.close();
    qemu_.save("disk.qcow2", rig_.file.bytes());
    ASSERT_EQ(qemu_.run("snapshot -c before disk.qcow2"), 0) << qemu_.said();
    ASSERT_EQ(qemu_.run("convert -O raw disk.qcow2 before.raw"), 0) << qemu_.said();
    rig_.file.set_bytes(qemu_.load("disk.qcow2"));
    model_.apply({.kind = EventKind::kFlush, .id = ++last_id_});  // closing was one
    model_.apply({.kind = EventKind::kEnd, .id = last_id_});
  }

  void expect_snapshot() {
    qemu_.save("disk.qcow2", rig_.file.bytes());
    // Goes back to it, as its size is perhaps another one.
    ASSERT_EQ(qemu_.run("snapshot -a before disk.qcow2"), 0) << qemu_.said();
    ASSERT_EQ(qemu_.run("convert -f qcow2 -O raw disk.qcow2 now.raw"), 0) << qemu_.said();
    EXPECT_TRUE(qemu_.load("now.raw") == qemu_.load("before.raw"));
  }

  void step() {
    reap();
    const uint64_t what = below(20);
    if (running_.size() >= 8 || what < 8) {
      rig_.queue.end_one();
      return;
    }
    if (what == 8) return below(10) == 0 ? resize() : flush();
    const uint64_t most = std::min<uint64_t>(below(4) == 0 ? 200 : 8, model_.sectors() - 1);
    const uint64_t count = 1 + below(most);
    const uint64_t first = below(model_.sectors() - count + 1);
    if (model_.is_busy(first, count)) return;
    change(what < 16   ? Kind::kWrite
           : what < 18 ? Kind::kWriteZeroes
                       : Kind::kDiscard,
           first, count);
  }

  void start(std::unique_ptr<TestRequest> request, DiskEvent event) {
    event.id = ++last_id_;
    model_.apply(event);
    TestRequest& started = *request;
    running_.emplace_back(event.id, std::move(request));
    rig_.disk->start(started);
    rig_.disk->submit();
  }

  void flush() {
    start(std::make_unique<TestRequest>(Kind::kFlush, 0, 0), {.kind = EventKind::kFlush});
  }

  void change(Kind kind, uint64_t first, uint64_t count) {
    auto request = std::make_unique<TestRequest>(kind, first * kSector, count * kSector);
    request->may_unmap = below(2) == 0;
    DiskEvent event{.kind = kind == Kind::kWrite         ? EventKind::kWrite
                            : kind == Kind::kWriteZeroes ? EventKind::kWriteZeroes
                                                         : EventKind::kDiscard,
                    .first = first,
                    .count = count,
                    .number = next_};
    if (kind == Kind::kWrite) {
      for (uint64_t i = 0; i < count; ++i) {
        SectorModel::fill(std::span(request->bytes).subspan(i * kSector, kSector), next_++);
      }
    }
    start(std::move(request), event);
  }

  /// The cut may come before it has ended.
  void resize() {
    drain();
    const uint64_t sectors = 1 + kWorkedOn + below(kMostSectors - kWorkedOn);
    const uint64_t id = ++last_id_;
    model_.apply({.kind = EventKind::kResize, .id = id, .count = sectors});
    bool ended = false;
    rig_.disk->resize(sectors * kSector, [&](const Result<void>& result) {
      const int error = errno_of(result);
      EXPECT_EQ(error, 0);
      model_.apply({.kind = EventKind::kEnd, .error = error, .id = id});
      ended = true;
    });
    const bool is_cut = below(4) == 0;
    for (uint64_t left = is_cut ? below(30) : UINT64_MAX; left > 0 && !ended; --left) {
      if (!rig_.queue.end_one()) break;
    }
    if (ended) return;
    cut_power();
    if (!testing::Test::HasFailure()) reopened();
  }

  /// After a cut in the middle, which says what is there now.
  void reopened() {
    rig_.open();
    const uint64_t sectors = rig_.disk->size() / kSector;
    ASSERT_TRUE(model_.may_have_sectors(sectors)) << sectors;
    for (uint64_t i = 0; i < sectors; ++i) expect_allowed(i);
    model_.restart(sectors);
  }

  void drain() {
    while (rig_.queue.end_one()) {
    }
    reap();
    ASSERT_TRUE(running_.empty()) << "never told";
  }

  void reap() {
    for (const auto& [id, request] : running_) {
      if (request->result < 0) continue;
      ASSERT_EQ(request->result, 0);
      model_.apply({.kind = EventKind::kEnd, .id = id});
    }
    std::erase_if(running_, [](const auto& running) { return running.second->result >= 0; });
  }

  void expect_allowed(uint64_t index) {
    const std::string bytes = rig_.read(index * kSector, kSector);
    const auto number = SectorModel::number_in(std::as_bytes(std::span(bytes)));
    ASSERT_TRUE(number) << "sector " << index << " is torn";
    ASSERT_TRUE(model_.may_hold(index, *number))
        << "sector " << index << ": " << *number << ", not" << model_.describe(index);
    model_.adopt(index, *number);
  }

  std::mt19937_64 random_;
  Qcow2Rig rig_;
  SectorModel model_;
  Qcow2CreateOptions options_;
  bool has_snapshot_ = false;
  std::vector<std::pair<uint64_t, std::unique_ptr<TestRequest>>> running_;
  uint64_t last_id_ = 0;
  uint64_t next_ = 1;  // that no sector holds yet
  QemuImg qemu_;
};

TEST(Qcow2PowerTest, ACutLosesNothingThatWasFlushed) {
  const uint64_t cuts = std::getenv("CROSVM_TEST_FULL") != nullptr ? 2000 : 100;
  for (uint64_t seed = 0; seed < cuts && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    PowerCut(seed).run();
  }
}

}  // namespace
}  // namespace crosvm
