#include "disk/qcow2/metadata_map.h"

#include <gtest/gtest.h>

#include <random>
#include <unordered_map>

#include "disk/qcow2/cluster_counts.h"

namespace crosvm {
namespace {

/// Clusters of a few neighbourhoods, so that they meet.
uint64_t some_cluster(std::mt19937_64& random, uint64_t limit) {
  return (random() % 5) * (limit / 5) + random() % (random() % 4 == 0 ? 70'000 : 100);
}

TEST(MetadataMapTest, KnowsEveryUse) {
  std::mt19937_64 random(1);
  MetadataMap map;
  std::unordered_map<uint64_t, ClusterUse> model;
  for (int i = 0; i < 200'000; ++i) {
    const uint64_t cluster = some_cluster(random, MetadataMap::kMostClusters - 100'000);
    const auto use = static_cast<ClusterUse>(random() % 12);
    if (random() % 3 == 0) {
      map.release(cluster);
      model.erase(cluster);
    } else if (random() % 3 == 0) {
      const bool is_free = !model.contains(cluster);
      EXPECT_EQ(map.claim(cluster, 1, ClusterUse::kL2), is_free);
      model[cluster] = is_free ? ClusterUse::kL2 : ClusterUse::kContested;
    } else {
      map.set(cluster, use);
      model[cluster] = use;
      if (use == ClusterUse::kData) model.erase(cluster);
    }
    const uint64_t other = some_cluster(random, MetadataMap::kMostClusters - 100'000);
    const auto known = model.find(other);
    ASSERT_EQ(map.use(other), known == model.end() ? ClusterUse::kData : known->second);
  }
  for (const auto& [cluster, use] : model) ASSERT_EQ(map.use(cluster), use);
  EXPECT_TRUE(map.has_room(MetadataMap::kMostClaimed - model.size()));
  EXPECT_FALSE(map.has_room(MetadataMap::kMostClaimed - model.size() + 1));
}

TEST(ClusterCountsTest, CountsFromOneBitToMany) {
  std::mt19937_64 random(1);
  ClusterCounts counts(64 << 20);
  std::unordered_map<uint64_t, uint64_t> model;
  const uint64_t limit = 1 << 24;
  uint64_t end = 0;
  for (int i = 0; i < 100'000; ++i) {
    const uint64_t cluster = some_cluster(random, limit);
    if (random() % 4 == 0) {
      counts.remove(cluster);
      if (model[cluster] > 0) --model[cluster];
    } else {
      const uint64_t times = random() % 1000 == 0 ? random() % 80'000 : 1;
      counts.add(cluster, times);
      model[cluster] = std::min(model[cluster] + times, ClusterCounts::kMany);
      end = std::max(end, cluster + 1);
    }
    const uint64_t other = some_cluster(random, limit);
    ASSERT_EQ(counts.get(other), model.contains(other) ? model[other] : 0);
  }
  EXPECT_EQ(counts.end(), end);
  EXPECT_FALSE(counts.is_full());
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t from = some_cluster(random, limit);
    const uint64_t until = from + random() % 200;
    uint64_t used = from;
    while (used < until && (!model.contains(used) || model[used] == 0)) ++used;
    ASSERT_EQ(counts.next_used(from, until), used) << from << " " << until;
    ASSERT_EQ(counts.any(from, until - from), used < until);
  }
}

TEST(ClusterCountsTest, SaysWhenItsMemoryIsUsedUp) {
  constexpr uint64_t kTebibyte = (1ULL << 40) / 65536;  // in clusters
  ClusterCounts dense(96 << 20);
  for (uint64_t cluster = 0; cluster < 15 * kTebibyte; cluster += 32) dense.add(cluster);
  EXPECT_FALSE(dense.is_full()) << "15 TiB";
  ClusterCounts sparse(1 << 20);
  uint64_t tables = 0;
  for (; !sparse.is_full() && tables < 65536; ++tables) sparse.add(tables * 32768);
  EXPECT_LE(tables, 257u);
  EXPECT_GT(tables, 200u);
}

}  // namespace
}  // namespace crosvm
