#include "disk/qcow2/table_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace crosvm {
namespace {

constexpr size_t kBytes = 512;
constexpr uint64_t kMost = 16;

uint64_t offset_of(uint64_t table) { return table * kBytes; }

TEST(TableCache, KeepsWhatIsUsedAndForgetsTheRest) {
  TableCache cache(kBytes, kMost * kBytes);
  cache.add(offset_of(1));
  cache.add(offset_of(2));
  for (uint64_t i = 3; i < 100; ++i) {
    cache.add(offset_of(i));
    // Again and again, with nothing else in between.
    ASSERT_NE(cache.find(offset_of(1)), nullptr) << i;
  }
  EXPECT_EQ(cache.find(offset_of(2)), nullptr);
  EXPECT_EQ(cache.find(offset_of(99 - kMost)), nullptr);
  EXPECT_NE(cache.find(offset_of(98)), nullptr);
}

TEST(TableCache, WhatIsDirtyOrPinnedStays) {
  TableCache cache(kBytes, kMost * kBytes);
  cache.mark_dirty(cache.add(offset_of(1)), 0, 8);
  CachedTable& pinned = cache.add(offset_of(2));
  ++pinned.pins;
  for (uint64_t i = 3; i < 100; ++i) cache.add(offset_of(i));
  EXPECT_NE(cache.find(offset_of(1)), nullptr);
  EXPECT_EQ(cache.find(offset_of(2)), &pinned);
}

TEST(TableCache, WhatWasJustFoundOutlivesTheNextThatAreAdded) {
  TableCache cache(kBytes, 0);
  std::mt19937 random(1);
  std::vector<uint64_t> tables;
  uint64_t next = 1;
  for (int round = 0; round < 2000; ++round) {
    if (tables.size() < 4 || random() % 3 == 0) {
      cache.add(offset_of(next));
      tables.push_back(next++);
    }
    const uint64_t wanted = tables[random() % tables.size()];
    if (cache.find(offset_of(wanted)) == nullptr) continue;
    for (size_t i = 0; i < TableCache::kFewest / 2; ++i) {
      cache.add(offset_of(next));
      tables.push_back(next++);
    }
    ASSERT_NE(cache.find(offset_of(wanted)), nullptr) << round;
  }
}

TEST(TableCache, AForgottenTableIsNotFound) {
  TableCache cache(kBytes, kMost * kBytes);
  cache.add(offset_of(1));
  EXPECT_NE(cache.find(offset_of(1)), nullptr);
  cache.forget(offset_of(1));
  EXPECT_EQ(cache.find(offset_of(1)), nullptr);
  CachedTable& anew = cache.add(offset_of(1));
  EXPECT_EQ(cache.find(offset_of(1)), &anew);
}

}  // namespace
}  // namespace crosvm
