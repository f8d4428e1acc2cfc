// What requests may hold at a time, however many there are and however the image is made.

#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <deque>
#include <set>

#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_rig.h"

namespace crosvm {
namespace {

using test::MemoryDisk;
using test::Qcow2Rig;
using test::TestRequest;
using Kind = DiskRequest::Kind;

/// Counts the requests that are on their way to the disks of a rig.
class Counts {
 public:
  void begun(const DiskRequest& request) {
    running_.insert(&request);
    bytes_ += request.length;
    most = std::max(most, running_.size());
    most_bytes = std::max(most_bytes, bytes_);
  }
  void ended(const DiskRequest& request) {
    if (running_.erase(&request) > 0) bytes_ -= request.length;
  }
  size_t most = 0;
  uint64_t most_bytes = 0;

 private:
  std::set<const DiskRequest*> running_;
  uint64_t bytes_ = 0;
};

class CountingDisk final : public MemoryDisk {
 public:
  CountingDisk(Qcow2Rig& rig, test::MemoryFile& file, Counts& counts, Kind kind)
      : MemoryDisk(rig.queue, file), counts_(counts), kind_(kind) {}
  void start(DiskRequest& request) override {
    if (request.kind == kind_) counts_.begun(request);
    MemoryDisk::start(request);
  }

 private:
  Counts& counts_;
  const Kind kind_;
};

/// Opens the image with requests of `kind` counted: those to the backing file if there is one.
void open_counted(Qcow2Rig& rig, Counts& counts, Kind kind) {
  Qcow2Parts parts{.file = {},
                   .sync = test::make_memory_sync(rig.file),
                   .backing = {},
                   .data_file = {},
                   .read_only = false,
                   .object = "test.qcow2",
                   .limits = rig.limits};
  auto counted =
      std::make_unique<CountingDisk>(rig, rig.backing ? *rig.backing : rig.file, counts, kind);
  if (rig.backing) {
    parts.file = std::make_unique<MemoryDisk>(rig.queue, rig.file);
    parts.backing = std::move(counted);
  } else {
    parts.file = std::move(counted);
  }
  rig.queue.fault = [&counts](const DiskRequest& request) {
    counts.ended(request);
    return 0;
  };
  auto opened = Qcow2Disk::create(std::move(parts));
  ASSERT_TRUE(opened) << opened.error().what();
  rig.disk = std::move(*opened);
}

void run_all(Qcow2Rig& rig, std::deque<TestRequest>& requests) {
  for (TestRequest& request : requests) rig.disk->start(request);
  rig.disk->submit();
  while (rig.queue.end_one()) {
  }
  const auto went_well = [](const TestRequest& request) { return request.result == 0; };
  EXPECT_TRUE(std::ranges::all_of(requests, went_well));
}

TEST(Qcow2LimitsTest, ARequestHasOnlySoManyPiecesOnTheirWay) {
  constexpr uint64_t kSmall = 512;
  constexpr uint64_t kPlaces = 1000;
  Qcow2Rig rig(1);
  rig.make({.size = kPlaces * kSmall, .cluster_size = kSmall});
  rig.open();
  std::string expected;
  for (uint64_t i = kPlaces; i-- > 0;) {  // no two lie together
    ASSERT_EQ(rig.write(i * kSmall, std::string(kSmall, static_cast<char>('a' + i % 26))), 0);
  }
  for (uint64_t i = 0; i < kPlaces; ++i) expected.append(kSmall, static_cast<char>('a' + i % 26));
  rig.close();
  for (const Kind kind : {Kind::kRead, Kind::kWrite}) {
    Counts counts;
    open_counted(rig, counts, kind);
    if (kind == Kind::kRead) {
      EXPECT_TRUE(rig.read(0, kPlaces * kSmall) == expected);
    } else {
      EXPECT_EQ(rig.write(0, expected), 0);
    }
    EXPECT_LE(counts.most, 32u + 1) << "a table may be loaded besides";
    EXPECT_GE(counts.most, 30u);
    rig.close();
  }
}

TEST(Qcow2LimitsTest, TablesOnTheirWayHoldOnlySoMuch) {
  constexpr uint64_t kLarge = 2 << 20;
  constexpr uint64_t kCoverage = kLarge / 8 * kLarge;
  Qcow2Rig rig(1);
  rig.make({.size = 24 * kCoverage, .cluster_size = kLarge});
  rig.limits = {.l2_bytes = 64 << 20, .block_bytes = 64 << 20};
  rig.open();
  for (uint64_t i = 0; i < 24; ++i) {
    ASSERT_EQ(rig.run(Kind::kWriteZeroes, i * kCoverage, kLarge), 0);
    ASSERT_EQ(rig.write(i * kCoverage, "x"), 0);
  }
  rig.close();
  Counts counts;
  open_counted(rig, counts, Kind::kRead);
  std::deque<TestRequest> reads;
  for (uint64_t i = 0; i < 24; ++i) reads.emplace_back(Kind::kRead, i * kCoverage, 1);
  run_all(rig, reads);
  EXPECT_LE(counts.most_bytes, (16u << 20) + reads.size());
  EXPECT_GE(counts.most_bytes, 16u << 20);
  for (const TestRequest& read : reads) EXPECT_EQ(read.bytes[0], std::byte{'x'});
}

TEST(Qcow2LimitsTest, OldBytesAroundNewOnesHoldOnlySoMuch) {
  constexpr uint64_t kLarge = 2 << 20;
  Qcow2Rig rig(1);
  rig.backing = std::make_unique<test::MemoryFile>(60 * kLarge);
  rig.make({.size = 60 * kLarge, .cluster_size = kLarge});
  Counts counts;
  open_counted(rig, counts, Kind::kRead);
  std::deque<TestRequest> writes;
  for (uint64_t i = 0; i < 60; i += 2) {
    writes.emplace_back(Kind::kWrite, i * kLarge, 512);           // the rest is read
    writes.emplace_back(Kind::kWrite, (i + 1) * kLarge, kLarge);  // has no rest
  }
  run_all(rig, writes);
  EXPECT_LE(counts.most_bytes, 16u << 20);
  EXPECT_GE(counts.most_bytes, 14u << 20);
}

TEST(Qcow2LimitsTest, ReadsThatWaitForOneCompressedClusterAreNotNested) {
  constexpr uint64_t kCluster = 65536;
  constexpr size_t kReads = 200'000;
  Qcow2Rig rig(1);
  rig.make({.size = 4 << 20});
  rig.open();
  ASSERT_EQ(rig.write(0, "data"), 0);
  rig.close();
  std::vector<std::byte> cluster(kCluster, std::byte{7});
  std::vector<std::byte> packed(kCluster);
  z_stream stream = {};
  ASSERT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(cluster.data());
  stream.avail_in = kCluster;
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = kCluster;
  ASSERT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  deflateEnd(&stream);
  rig.file.write(5 * kCluster, packed);  // where the data was
  std::vector<std::byte> entry(8);
  store_big_endian(entry, 0, kQcow2Compressed | (5 * kCluster));
  rig.file.write(4 * kCluster, entry);
  rig.open();
  std::deque<TestRequest> reads;
  for (size_t i = 0; i < kReads; ++i) reads.emplace_back(Kind::kRead, 512, 1);
  run_all(rig, reads);
  EXPECT_EQ(reads.back().bytes[0], std::byte{7});
}

/// Has room for so many bytes.
class FullDisk : public MemoryDisk {
 public:
  FullDisk(Qcow2Rig& rig, uint64_t most) : MemoryDisk(rig.queue, rig.file), most_(most) {}
  void resize(uint64_t bytes, ResizeDone done) override {
    if (bytes > most_) return done(fail(Error(std::errc::no_space_on_device, "full")));
    MemoryDisk::resize(bytes, std::move(done));
  }

 private:
  const uint64_t most_;
};

void open_on(Qcow2Rig& rig, std::unique_ptr<Disk> file) {
  auto opened = Qcow2Disk::create({.file = std::move(file),
                                   .sync = test::make_memory_sync(rig.file),
                                   .backing = {},
                                   .data_file = {},
                                   .read_only = false,
                                   .object = "test.qcow2"});
  ASSERT_TRUE(opened) << opened.error().what();
  rig.disk = std::move(*opened);
}

TEST(Qcow2RoomTest, WhatFitsIsWrittenThoughNothingFitsAfterIt) {
  constexpr uint64_t kCluster = 65536;
  Qcow2Rig rig(1);
  rig.make({.size = 4 << 20});
  open_on(rig, std::make_unique<FullDisk>(rig, rig.file.bytes().size() + 2 * kCluster));
  EXPECT_EQ(rig.write(0, "a table and a cluster"), 0);
  EXPECT_EQ(rig.write(kCluster, "x"), ENOSPC);
  EXPECT_EQ(rig.flush(), 0);
  rig.close();
  rig.expect_clean();
}

}  // namespace
}  // namespace crosvm
