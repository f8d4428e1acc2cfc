// A loss of power at any moment leaves a valid image with every flushed byte.

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <set>

#include "disk/qcow2/qcow2_rig.h"

namespace crosvm {
namespace {

using test::MemoryFile;
using test::Qcow2Rig;
using test::TestRequest;
using Kind = DiskRequest::Kind;

constexpr uint64_t kSector = 512;
constexpr uint64_t kSectors = 2048;

/// Requests of whole sectors that each hold one number; what a sector may hold after a cut is
/// known.
class PowerCut {
 public:
  explicit PowerCut(uint64_t seed) : random_(seed), rig_(seed), sectors_(kSectors) {
    options_.size = kSectors * kSector;
    options_.cluster_size = 512ULL << below(8);
    options_.refcount_bits = 1U << below(7);
    options_.extended_l2 = options_.cluster_size >= 16384 && below(2) == 0;
    if (below(3) == 0) {
      rig_.backing = std::make_unique<MemoryFile>(options_.size);
      options_.backing_name = "below";
      options_.backing_format = "raw";
    }
    rig_.limits = {.l2_bytes = 0, .block_bytes = 1 << 20};
  }

  void run() {
    rig_.make(options_);
    rig_.open();
    const uint64_t steps = 20 + below(1500);
    for (uint64_t i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) step();
    rig_.is_dead = true;
    std::vector<std::byte> left = rig_.file.cut_power(random_);
    rig_.close();
    rig_.is_dead = false;
    rig_.file.set_bytes(std::move(left));
    const Qcow2Report report = rig_.check();
    ASSERT_EQ(report.errors, 0u) << report.messages.front();
    rig_.open();
    for (uint64_t i = 0; i < kSectors; ++i) expect_allowed(i);
    ASSERT_EQ(rig_.write(0, std::string(100'000, 'x')), 0);
    rig_.close();
    EXPECT_EQ(rig_.check(Qcow2Repair::kLeaks).errors, 0u);
    rig_.expect_clean();
    rig_.open();
    EXPECT_TRUE(rig_.read(0, 100'000) == std::string(100'000, 'x'));
    for (uint64_t i = 200; i < kSectors; ++i) expect_allowed(i);
  }

 private:
  struct Sector {
    std::set<uint64_t> allowed = {0};
    uint64_t last = 0;
    uint64_t version = 0;
    bool busy = false;
  };
  struct Running {
    std::unique_ptr<TestRequest> request;
    std::vector<uint64_t> versions;  // of a flush: of the sectors that it makes stable
  };

  uint64_t below(uint64_t limit) { return random_() % limit; }

  void step() {
    reap();
    const uint64_t what = below(20);
    if (running_.size() >= 8 || what < 8) {
      rig_.queue.end_one();
      return;
    }
    if (what == 8) return flush();
    const uint64_t count = 1 + below(below(4) == 0 ? 200 : 8);
    const uint64_t first = below(kSectors - count);
    for (uint64_t i = first; i < first + count; ++i) {
      if (sectors_[i].busy) return;
    }
    change(what < 16   ? Kind::kWrite
           : what < 18 ? Kind::kWriteZeroes
                       : Kind::kDiscard,
           first, count);
  }

  void start(std::unique_ptr<TestRequest> request, std::vector<uint64_t> versions) {
    TestRequest& started = *request;
    running_.push_back({std::move(request), std::move(versions)});
    rig_.disk->start(started);
    rig_.disk->submit();
  }

  void flush() {
    std::vector<uint64_t> versions(kSectors);
    for (uint64_t i = 0; i < kSectors; ++i) {
      versions[i] = sectors_[i].busy ? UINT64_MAX : sectors_[i].version;
    }
    start(std::make_unique<TestRequest>(Kind::kFlush, 0, 0), std::move(versions));
  }

  void change(Kind kind, uint64_t first, uint64_t count) {
    auto request = std::make_unique<TestRequest>(kind, first * kSector, count * kSector);
    request->may_unmap = below(2) == 0;
    for (uint64_t i = 0; i < count; ++i) {
      Sector& sector = sectors_[first + i];
      const uint64_t value = kind == Kind::kWrite ? ++next_ : 0;
      if (kind == Kind::kWrite) {
        for (uint64_t at = 0; at < kSector; at += 8) {
          std::memcpy(request->bytes.data() + i * kSector + at, &value, 8);
        }
      }
      sector.allowed.insert(value);
      // A discard may do nothing, so what was there before stays allowed after a flush.
      if (kind != Kind::kDiscard) sector.last = value;
      sector.busy = true;
      ++sector.version;
    }
    start(std::move(request), {});
  }

  void reap() {
    for (Running& running : running_) {
      const TestRequest& request = *running.request;
      if (request.result < 0) continue;
      ASSERT_EQ(request.result, 0);
      for (uint64_t i = 0; i < request.length / kSector; ++i) {
        Sector& sector = sectors_[request.offset / kSector + i];
        sector.busy = false;
        if (request.kind == Kind::kDiscard) sector.version |= 1ULL << 63;  // what it holds is open
        if (request.kind != Kind::kDiscard) sector.version &= ~(1ULL << 63);
      }
      if (request.kind == Kind::kFlush) flushed(running.versions);
    }
    std::erase_if(running_, [](const Running& running) { return running.request->result >= 0; });
  }

  void flushed(const std::vector<uint64_t>& versions) {
    for (uint64_t i = 0; i < kSectors; ++i) {
      Sector& sector = sectors_[i];
      if (versions[i] != sector.version) continue;
      const bool is_open = (sector.version >> 63) != 0;
      sector.allowed = {sector.last};
      if (is_open) sector.allowed.insert(0);
    }
  }

  void expect_allowed(uint64_t index) {
    const std::string bytes = rig_.read(index * kSector, kSector);
    uint64_t value = 0;
    std::memcpy(&value, bytes.data(), 8);
    ASSERT_TRUE(sectors_[index].allowed.contains(value)) << "sector " << index << ": " << value;
    for (uint64_t at = 8; at < kSector; at += 8) {
      ASSERT_EQ(std::memcmp(bytes.data(), bytes.data() + at, 8), 0) << "sector " << index;
    }
  }

  std::mt19937_64 random_;
  Qcow2Rig rig_;
  Qcow2CreateOptions options_;
  std::vector<Sector> sectors_;
  std::vector<Running> running_;
  uint64_t next_ = 0;
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
