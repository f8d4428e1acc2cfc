#include "disk/qcow2/qcow2_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "disk/qcow2/qcow2_rig.h"

namespace crosvm {
namespace {

using test::MemoryFile;
using test::Qcow2Rig;
using test::TestRequest;
using testing::HasSubstr;
using Kind = DiskRequest::Kind;

constexpr uint64_t kSize = 4 << 20;

std::string zeroes(size_t length) { return std::string(length, '\0'); }

TEST(Qcow2DiskTest, ReadsBackWhatWasWrittenAfterReopening) {
  Qcow2Rig rig(1);
  rig.make({.size = kSize});
  rig.open();
  EXPECT_EQ(rig.disk->size(), kSize);
  EXPECT_TRUE(rig.read(0, 4096) == zeroes(4096));
  EXPECT_EQ(rig.write(100'000, std::string(200'000, 'a')), 0);
  EXPECT_EQ(rig.write(kSize - 1000, std::string(1000, 'b')), 0);
  EXPECT_TRUE(rig.read(99'999, 200'002) == zeroes(1) + std::string(200'000, 'a') + zeroes(1));
  rig.close();
  rig.expect_clean();
  rig.open();
  EXPECT_TRUE(rig.read(100'000, 200'000) == std::string(200'000, 'a'));
  EXPECT_TRUE(rig.read(kSize - 1001, 1001) == zeroes(1) + std::string(1000, 'b'));
}

TEST(Qcow2DiskTest, ExtentsWhereNothingIsWrittenAreThoseOfTheBackingFile) {
  constexpr uint64_t kHole = 100'000;
  constexpr uint64_t kBackingBytes = 3 << 20;
  Qcow2Rig rig(1);
  rig.backing = std::make_unique<MemoryFile>(kBackingBytes);
  rig.backing->write(kHole, std::vector<std::byte>(kBackingBytes - kHole, std::byte{'b'}));
  rig.make({.size = kSize, .backing_name = "base", .backing_format = "raw"});
  rig.open();
  ASSERT_EQ(rig.write(1 << 20, std::string(65536, 'w')), 0);
  struct Known {
    uint64_t offset, end;
    bool is_zero, is_present;
  };
  for (const Known& known :
       {Known{0, kHole, true, false}, Known{kHole, 1 << 20, false, false},
        Known{1 << 20, (1 << 20) + 65536, false, true}, Known{2 << 20, kBackingBytes, false, false},
        Known{kBackingBytes, kSize, true, false}}) {
    TestRequest request(Kind::kExtent, known.offset, kSize - known.offset);
    ASSERT_EQ(rig.run(request), 0);
    EXPECT_EQ(request.extent.length, known.end - known.offset) << known.offset;
    EXPECT_EQ(request.extent.is_zero, known.is_zero) << known.offset;
    EXPECT_EQ(request.extent.is_present, known.is_present) << known.offset;
  }
}

TEST(Qcow2DiskTest, ABackingFileShowsWhereNothingIsWritten) {
  Qcow2Rig rig(2);
  rig.backing = std::make_unique<MemoryFile>(kSize / 2 + 512);
  const std::string below(kSize / 2 + 512, 'x');
  rig.backing->write(0, std::as_bytes(std::span(below)));
  rig.make({.size = kSize, .backing_name = "below.img", .backing_format = "raw"});
  rig.open();
  EXPECT_TRUE(rig.read(kSize / 2, 1024) == std::string(512, 'x') + zeroes(512));
  EXPECT_EQ(rig.write(65536 + 10, "hello"), 0);
  EXPECT_EQ(rig.write(kSize / 2 + 1000, "end"), 0);
  EXPECT_TRUE(rig.read(65536, 20) == std::string(10, 'x') + "hello" + std::string(5, 'x'));
  EXPECT_TRUE(rig.read(kSize / 2 + 500, 503) == std::string(12, 'x') + zeroes(488) + "end");
  EXPECT_EQ(rig.run(Kind::kWriteZeroes, 0, 65536, true), 0);
  EXPECT_TRUE(rig.read(65535, 2) == std::string("\0x", 2));
  rig.close();
  rig.expect_clean();
}

TEST(Qcow2DiskTest, DiscardGivesSpaceBackAndItIsUsedAgain) {
  Qcow2Rig rig(3);
  rig.make({.size = kSize});
  rig.open();
  ASSERT_EQ(rig.write(0, std::string(kSize, 'd')), 0);
  ASSERT_EQ(rig.flush(), 0);
  const uint64_t before = rig.file.bytes().size();
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(rig.run(Kind::kDiscard, 0, kSize), 0);
    ASSERT_EQ(rig.flush(), 0);
    while (rig.queue.end_one()) {
    }
    ASSERT_EQ(rig.write(0, std::string(kSize, 'e')), 0);
    ASSERT_EQ(rig.flush(), 0);
  }
  EXPECT_GE(rig.file.punched_bytes(), 5 * kSize);
  EXPECT_LE(rig.file.bytes().size(), before + (2 << 20));
  rig.close();
  rig.expect_clean();
}

TEST(Qcow2DiskTest, RefusesWhatIsNotThere) {
  Qcow2Rig rig(4);
  rig.make({.size = kSize});
  rig.open();
  EXPECT_EQ(rig.run(Kind::kRead, kSize, 1), EINVAL);
  EXPECT_EQ(rig.run(Kind::kWrite, UINT64_MAX, 2), EINVAL);
  EXPECT_EQ(rig.run(Kind::kRead, kSize, 0), 0);
  rig.close();
  rig.open(true);
  EXPECT_EQ(rig.write(0, "x"), EROFS);
  EXPECT_EQ(rig.flush(), 0);
}

TEST(Qcow2DiskTest, IsDestroyedWithRequestsInFlight) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Qcow2Rig rig(seed);
    rig.make({.size = kSize, .cluster_size = 4096});
    rig.open();
    std::vector<std::unique_ptr<TestRequest>> requests;
    for (uint64_t i = 0; i < 20; ++i) {
      const Kind kind = i % 5 == 4 ? Kind::kFlush : i % 5 == 3 ? Kind::kDiscard : Kind::kWrite;
      requests.push_back(std::make_unique<TestRequest>(kind, i * 10'000, 9'000));
      rig.disk->start(*requests.back());
    }
    rig.disk->submit();
    for (uint64_t i = 0; i < seed * 2; ++i) rig.queue.end_one();
    rig.close();
    rig.expect_clean();
  }
}

TEST(Qcow2DiskTest, GrowsAndShrinks) {
  for (uint64_t cluster : {512, 4096, 65536}) {
    Qcow2Rig rig(5);
    rig.backing = std::make_unique<MemoryFile>(kSize);
    const std::string below(kSize, 'x');
    rig.backing->write(0, std::as_bytes(std::span(below)));
    rig.make(
        {.size = 70'144, .cluster_size = cluster, .backing_name = "b", .backing_format = "raw"});
    rig.open();
    ASSERT_EQ(rig.write(70'000, std::string(144, 'a')), 0);
    ASSERT_EQ(rig.resize(kSize * 2), 0);
    EXPECT_EQ(rig.disk->size(), kSize * 2);
    EXPECT_TRUE(rig.read(70'000, 144) == std::string(144, 'a'));
    EXPECT_TRUE(rig.read(70'144, 200'000) == zeroes(200'000));
    EXPECT_TRUE(rig.read(kSize - 4096, 8192) == zeroes(8192));
    ASSERT_EQ(rig.write(kSize, std::string(kSize, 'b')), 0);
    ASSERT_EQ(rig.resize(kSize + 512), 0);
    rig.close();
    rig.expect_clean();
    rig.open();
    EXPECT_TRUE(rig.read(kSize, 512) == std::string(512, 'b'));
    ASSERT_EQ(rig.resize(kSize + 65536), 0);
    EXPECT_TRUE(rig.read(kSize + 512, 65024) == zeroes(65024));
    rig.close();
    rig.expect_clean();
  }
}

TEST(Qcow2DiskTest, WhatWasCutOffNeverComesBack) {
  const uint64_t odd = kSize / 8 * 3 + 512;  // neither the end of a cluster nor of a table
  for (const uint32_t version : {2, 3}) {
    for (const int other_file : {0, 1, 2, 3}) {
      SCOPED_TRACE(testing::Message() << version << ' ' << other_file);
      Qcow2Rig rig(6);
      Qcow2CreateOptions options{.size = kSize, .version = version, .cluster_size = 4096};
      if (other_file == 1) {
        rig.backing = std::make_unique<MemoryFile>();
        rig.backing->set_bytes(std::vector<std::byte>(kSize / 2, std::byte{'b'}));
        options.backing_name = options.backing_format = "raw";
      } else if (other_file > 1) {
        if (version == 2) continue;
        options.data_file_name = "data";
        options.raw_data = other_file == 3;
        rig.data_file = std::make_unique<MemoryFile>(options.raw_data ? kSize : 0);
      }
      rig.make(options);
      rig.open();
      ASSERT_EQ(rig.write(0, std::string(kSize, 'a')), 0);
      for (const uint64_t size : {odd + 512, odd, kSize / 8, kSize * 2}) {
        ASSERT_EQ(rig.resize(size), 0);
        rig.close();
        rig.expect_clean();
        rig.open();
      }
      EXPECT_TRUE(rig.read(0, kSize / 8) == std::string(kSize / 8, 'a'));
      EXPECT_TRUE(rig.read(kSize / 8, kSize) == zeroes(kSize));
      if (options.raw_data) {
        EXPECT_TRUE(rig.data_file->bytes()[kSize / 8] == std::byte{0});
      }
      ASSERT_EQ(rig.resize(512), 0);
      rig.close();
      rig.expect_clean();
      EXPECT_LE(rig.check().data_clusters, 1u);
    }
  }
}

TEST(Qcow2DiskTest, ARawDataFileIsTheDiskAtAnyMoment) {
  for (const bool extended : {false, true}) {
    Qcow2Rig rig(5);
    rig.data_file = std::make_unique<MemoryFile>(kSize);
    rig.make({.size = kSize,
              .cluster_size = 16384,
              .extended_l2 = extended,
              .data_file_name = "data",
              .raw_data = true});
    rig.open();
    ASSERT_EQ(rig.resize(kSize * 40), 0);
    // Not flushed, and lost but for what the data file has.
    ASSERT_EQ(rig.write(kSize * 39 + 100, "hello"), 0);
    const std::vector<std::byte> left = rig.file.bytes();
    rig.is_dead = true;
    rig.close();
    rig.is_dead = false;
    rig.file.set_bytes(left);
    rig.open();
    EXPECT_EQ(rig.read(kSize * 39 + 99, 7), zeroes(1) + "hello" + zeroes(1));
    rig.close();
    rig.expect_clean();
  }
}

TEST(Qcow2DiskTest, TwoWritesToOneNewCluster) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Qcow2Rig rig(seed);
    rig.make({.size = kSize});
    rig.open();
    std::vector<std::unique_ptr<TestRequest>> requests;
    for (uint64_t i = 0; i < 16; ++i) {
      auto& request = requests.emplace_back(
          std::make_unique<TestRequest>(Kind::kWrite, 65536 + i * 4096, 4096));
      std::ranges::fill(request->bytes, std::byte('a' + i));
      rig.disk->start(*request);
    }
    rig.disk->submit();
    while (rig.queue.end_one()) {
    }
    for (uint64_t i = 0; i < 16; ++i) {
      EXPECT_EQ(requests[i]->result, 0);
      EXPECT_TRUE(rig.read(65536 + i * 4096, 4096) ==
                  std::string(4096, static_cast<char>('a' + i)));
    }
    rig.close();
    rig.expect_clean();
    EXPECT_EQ(rig.check().data_clusters, 1u);
  }
}

TEST(Qcow2DiskTest, NeighboursInOneSubclusterAreNotUndone) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Qcow2Rig rig(seed);
    rig.make({.size = kSize, .cluster_size = 32768, .extended_l2 = true});  // subclusters of 1024
    rig.open();
    ASSERT_EQ(rig.write(1024, std::string(1024, 'a')), 0);
    ASSERT_EQ(rig.write(4096, std::string(1024, 'a')), 0);
    // Each ends or begins in the middle of a subcluster that is there, and makes others.
    TestRequest makes(Kind::kWrite, 1536, 3072);
    TestRequest before(Kind::kWrite, 1024, 512);
    TestRequest behind(Kind::kWrite, 4608, 512);
    std::ranges::fill(makes.bytes, std::byte{'m'});
    for (TestRequest* beside : {&before, &behind}) {
      std::ranges::fill(beside->bytes, std::byte{'n'});
    }
    for (TestRequest* request : {&makes, &before, &behind}) rig.disk->start(*request);
    rig.disk->submit();
    while (rig.queue.end_one()) {
    }
    ASSERT_TRUE(rig.read(1024, 4096) ==
                std::string(512, 'n') + std::string(3072, 'm') + std::string(512, 'n'))
        << seed;
    rig.close();
    rig.expect_clean();
  }
}

TEST(Qcow2DiskTest, AfterAnErrorOfTheHostItGoesOn) {
  for (uint64_t failing = 0; failing < 60; ++failing) {
    Qcow2Rig rig(failing);
    rig.make({.size = kSize, .cluster_size = 4096});
    rig.open();
    ASSERT_EQ(rig.write(0, std::string(50'000, 'a')), 0);
    ASSERT_EQ(rig.flush(), 0);
    uint64_t number = 0;
    rig.queue.fault = [&](const DiskRequest&) { return number++ >= failing ? ENOSPC : 0; };
    for (uint64_t i = 0; i < 20; ++i) (void)rig.write(i * 9'000, std::string(9'000, 'b'));
    (void)rig.run(Kind::kDiscard, 0, 40'960);
    (void)rig.flush();
    rig.queue.fault = nullptr;
    while (rig.queue.end_one()) {
    }
    for (uint64_t i = 0; i < 20; ++i) {
      ASSERT_EQ(rig.write(i * 9'000, std::string(9'000, 'c')), 0) << failing;
    }
    ASSERT_EQ(rig.flush(), 0);
    ASSERT_TRUE(rig.read(0, 180'000) == std::string(180'000, 'c'));
    rig.close();
    rig.expect_clean();
  }
}

}  // namespace
}  // namespace crosvm
