// Writes of each kind, and flushes, that the host refuses or does by half: the guest hears of it,
// the image stays valid with every flushed byte, and the disk goes on when the host does.

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <random>

#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/qcow2_rig.h"
#include "disk/sector_model.h"

namespace crosvm {
namespace {

using test::DiskEvent;
using test::kSector;
using test::Qcow2Rig;
using test::SectorModel;
using test::TestRequest;
using Kind = DiskRequest::Kind;
using EventKind = DiskEvent::Kind;

/// What a write of the image is for. kData: also a table that nothing names yet. kFlush: none.
enum class Part { kHeader, kL1, kL2, kRefcountTable, kRefcountBlock, kData, kFlush };

std::string name_of(Part part) {
  constexpr std::array kNames = {"Header",        "L1",   "L2",   "RefcountTable",
                                 "RefcountBlock", "Data", "Flush"};
  return kNames[static_cast<size_t>(part)];
}

constexpr uint64_t kSectors = 8192;
constexpr uint64_t kOffsetBits = 0x00ff'ffff'ffff'fe00;

class FailingWrites {
 public:
  FailingWrites(Part part, uint64_t seed)
      : part_(part), random_(seed), rig_(seed), model_(kSectors, kSectors) {
    // Small tables: each is written often, and those of the refcounts grow.
    rig_.make({.size = kSectors * kSector, .cluster_size = 512, .refcount_bits = 64});
    rig_.limits = {.l2_bytes = 0, .block_bytes = 0};
    rig_.open();
  }

  /// Gives how many writes failed.
  uint64_t run() {
    // The header is written when the table of refcounts first moves, and seldom else.
    const bool seldom = part_ == Part::kHeader;
    work(seldom ? 0 : below(300));
    expect_no_failures();
    rig_.queue.fault = [this, first = seldom ? 0 : below(30)](const DiskRequest& request) {
      return fault(request, first);
    };
    work(seldom ? 900 : 20 + below(600));
    if (hits_ > 0) {
      EXPECT_GT(part_ == Part::kFlush ? failed_flushes_ : failed_, 0u)
          << "the guest heard nothing of " << hits_ << " failures";
    }
    below(2) == 0 ? end_now() : go_on();
    return hits_;
  }

 private:
  uint64_t below(uint64_t limit) { return random_() % limit; }

  uint64_t number_at(uint64_t offset) const {
    std::array<std::byte, 8> bytes;
    rig_.file.read(offset, bytes);
    return load_big_endian<uint64_t>(bytes, 0);
  }

  bool names(uint64_t table, uint64_t entries, uint64_t offset) const {
    for (uint64_t i = 0; i < entries; ++i) {
      if ((number_at(table + i * 8) & kOffsetBits) == (offset & ~uint64_t{511})) return true;
    }
    return false;
  }

  /// By the tables as the file has them.
  Part part_at(uint64_t offset) const {
    const auto& all = rig_.file.bytes();
    const auto header = parse_qcow2_header(std::span(all).first(512), all.size(), "test.qcow2");
    if (!header) return Part::kData;
    const uint64_t l1_bytes = (header->l1_entries * uint64_t{8} + 511) / 512 * 512;
    const uint64_t table_bytes = header->refcount_table_clusters * uint64_t{512};
    if (offset < 512) return Part::kHeader;
    if (offset - header->l1_offset < l1_bytes) return Part::kL1;
    if (offset - header->refcount_table_offset < table_bytes) return Part::kRefcountTable;
    if (names(header->l1_offset, header->l1_entries, offset)) return Part::kL2;
    if (names(header->refcount_table_offset, table_bytes / 8, offset)) return Part::kRefcountBlock;
    return Part::kData;
  }

  bool is_of_part(const DiskRequest& request) const {
    if (part_ == Part::kFlush) return request.kind == Kind::kFlush;
    return request.kind == Kind::kWrite && part_at(request.offset) == part_;
  }

  /// From the `first`th write of the part on; some are done in part.
  int fault(const DiskRequest& request, uint64_t first) {
    if (!is_of_part(request) || seen_++ < first) return 0;
    if (part_ == Part::kFlush) {
      if (below(8) != 0) return 0;
      ++hits_;
      return EIO;
    }
    ++hits_;
    uint64_t done = below(request.length / kSector + 1) * kSector;
    uint64_t at = request.offset;
    for (const GuestSlice& buffer : request.buffers) {
      std::vector<std::byte> bytes(std::min<uint64_t>(buffer.size(), done));
      if (bytes.empty()) break;
      (void)buffer.read_bytes(0, bytes);
      rig_.file.write(at, bytes);
      at += bytes.size();
      done -= bytes.size();
    }
    return below(2) == 0 ? EIO : ENOSPC;
  }

  void work(uint64_t steps) {
    for (uint64_t i = 0; i < steps; ++i) {
      const uint64_t what = below(20);
      const uint64_t count = 1 + below(below(4) == 0 ? 150 : 8);
      const uint64_t first = below(kSectors - count);
      if (what < 14) {
        apply(Kind::kWrite, EventKind::kWrite, first, count);
      } else if (what < 16) {
        apply(Kind::kWriteZeroes, EventKind::kWriteZeroes, first, count);
      } else if (what < 18) {
        apply(Kind::kDiscard, EventKind::kDiscard, first, count);
      } else {
        apply(Kind::kFlush, EventKind::kFlush, 0, 0);
      }
    }
    apply(Kind::kFlush, EventKind::kFlush, 0, 0);
  }

  void apply(Kind kind, EventKind event, uint64_t first, uint64_t count) {
    TestRequest request(kind, first * kSector, count * kSector);
    request.may_unmap = below(2) == 0;
    const uint64_t id = ++last_id_;
    model_.apply({.kind = event, .id = id, .first = first, .count = count, .number = next_});
    for (uint64_t i = 0; kind == Kind::kWrite && i < count; ++i) {
      SectorModel::fill(std::span(request.bytes).subspan(i * kSector, kSector), next_++);
    }
    const int error = rig_.run(request);
    if (error != 0) ++failed_;
    if (error != 0 && kind == Kind::kFlush) ++failed_flushes_;
    model_.apply({.kind = EventKind::kEnd, .error = error, .id = id});
  }

  void expect_no_failures() const { ASSERT_EQ(failed_, 0u); }

  /// While the host still fails: as if the process were killed.
  void end_now() {
    rig_.is_dead = true;
    rig_.close();
    rig_.is_dead = false;
    rig_.queue.fault = nullptr;
    const Qcow2Report report = rig_.check();
    ASSERT_EQ(report.errors, 0u) << report.messages.front();
    rig_.open();
    expect_contents();
    rig_.close();
  }

  void go_on() {
    rig_.queue.fault = nullptr;
    while (rig_.queue.end_one()) {
    }
    failed_ = 0;
    work(below(200));
    expect_no_failures();
    expect_contents();
    rig_.close();
    rig_.expect_clean();
    rig_.open();
    expect_contents();
    rig_.close();
  }

  void expect_contents() {
    const std::string all = rig_.read(0, kSectors * kSector);
    for (uint64_t i = 0; i < kSectors; ++i) {
      const auto number =
          SectorModel::number_in(std::as_bytes(std::span(all).subspan(i * kSector, kSector)));
      ASSERT_TRUE(number) << "sector " << i << " is torn";
      ASSERT_TRUE(model_.may_hold(i, *number))
          << "sector " << i << ": " << *number << ", not" << model_.describe(i);
    }
  }

  Part part_;
  std::mt19937_64 random_;
  Qcow2Rig rig_;
  SectorModel model_;
  uint64_t seen_ = 0;    // writes of the part
  uint64_t hits_ = 0;    // that failed
  uint64_t failed_ = 0;  // requests
  uint64_t failed_flushes_ = 0;
  uint64_t last_id_ = 0;
  uint64_t next_ = 1;  // that no sector holds yet
};

class Qcow2ErrorTest : public testing::TestWithParam<Part> {};

TEST_P(Qcow2ErrorTest, TheGuestHearsOfItAndTheImageStaysValid) {
  const uint64_t seeds = std::getenv("CROSVM_TEST_FULL") != nullptr ? 500 : 8;
  uint64_t hits = 0;
  for (uint64_t seed = 0; seed < seeds && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    hits += FailingWrites(GetParam(), seed).run();
  }
  EXPECT_GT(hits, 0u);
}

INSTANTIATE_TEST_SUITE_P(Parts, Qcow2ErrorTest,
                         testing::Values(Part::kHeader, Part::kL1, Part::kL2, Part::kRefcountTable,
                                         Part::kRefcountBlock, Part::kData, Part::kFlush),
                         [](const auto& info) { return name_of(info.param); });

/// Makes a commit due that no flush asks for, until a flush of the host has failed.
void fail_a_commit(Qcow2Rig& rig) {
  bool has_failed = false;
  rig.queue.fault = [&](const DiskRequest& request) {
    return request.kind == Kind::kFlush && !std::exchange(has_failed, true) ? EIO : 0;
  };
  for (uint64_t i = 0; i < 3000 && !has_failed; ++i) {
    (void)rig.write(i * 37 % 8000 * kSector, std::string(kSector, 'x'));
  }
  while (rig.queue.end_one()) {
  }
  EXPECT_TRUE(has_failed);
  rig.queue.fault = nullptr;
}

// The host takes the bytes for written once it has told of it.
TEST(Qcow2FlushTest, AFailureThatNoFlushOfTheGuestHasSeenIsToldByTheNext) {
  Qcow2Rig rig(1);
  rig.make({.size = kSectors * kSector, .cluster_size = 512, .refcount_bits = 64});
  rig.limits = {.l2_bytes = 0, .block_bytes = 0};
  rig.open();
  fail_a_commit(rig);
  EXPECT_EQ(rig.flush(), EIO);
  EXPECT_EQ(rig.flush(), 0);
  rig.close();
  rig.expect_clean();
}

TEST(Qcow2FlushTest, AFailureIsToldByEveryFlushUnderWay) {
  for (const int failing : {0, 1}) {  // as they end
    SCOPED_TRACE(failing);
    Qcow2Rig rig(1);
    rig.make({.size = kSectors * kSector});
    rig.open();
    rig.queue.fault = [failing, seen = 0](const DiskRequest&) mutable {
      return seen++ == failing ? EIO : 0;
    };
    TestRequest first(Kind::kFlush, 0, 0);
    TestRequest second(Kind::kFlush, 0, 0);
    rig.disk->start(first);
    EXPECT_EQ(rig.run(second), EIO);
    while (rig.queue.end_one()) {
    }
    EXPECT_EQ(first.result, EIO);
    EXPECT_EQ(rig.flush(), 0);
  }
}

}  // namespace
}  // namespace crosvm
