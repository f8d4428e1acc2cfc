// Images that lie: a clear error, no harm to their own metadata, nothing opened or allocated.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_rig.h"

namespace crosvm {
namespace {

using test::Qcow2Rig;
using testing::HasSubstr;
using Kind = DiskRequest::Kind;

constexpr uint64_t kSize = 4 << 20;
constexpr uint64_t kCluster = 65536;  // header, refcount table, block, L1, L2, data follow

template <class T>
void patch(Qcow2Rig& rig, uint64_t offset, T value) {
  std::vector<std::byte> bytes(sizeof(T));
  store_big_endian(bytes, 0, value);
  rig.file.write(offset, bytes);
}

template <class T>
T look(const Qcow2Rig& rig, uint64_t offset) {
  return load_big_endian<T>(rig.file.bytes(), offset);
}

/// One cluster of data, closed.
void make_image(Qcow2Rig& rig) {
  rig.make({.size = kSize});
  rig.open();
  ASSERT_EQ(rig.write(0, "data"), 0);
  rig.close();
}

struct Lie {
  uint64_t offset;
  uint64_t value;
  size_t bytes;
  const char* said;
};

class Qcow2HeaderTest : public testing::TestWithParam<Lie> {};

INSTANTIATE_TEST_SUITE_P(
    , Qcow2HeaderTest,
    testing::Values(Lie{4, 4, 4, "version 4"}, Lie{8, 3 << 20, 8, "name of its backing file"},
                    Lie{20, 22, 4, "clusters of 2^22"}, Lie{24, 1ULL << 63, 8, "its disk has"},
                    Lie{24, 1ULL << 50, 8, "too small for a disk"}, Lie{32, 1, 4, "encrypted"},
                    Lie{36, UINT32_MAX, 4, "L1 table of"},
                    Lie{40, 1ULL << 40, 8, "outside the file"}, Lie{40, 100, 8, "not aligned"},
                    Lie{40, 0, 8, "outside the file"}, Lie{40, kCluster, 8, "overlap"},
                    Lie{48, 1ULL << 62, 8, "outside the file"}, Lie{56, 0, 4, "no refcount table"},
                    Lie{56, UINT32_MAX, 4, "refcount table of"},
                    Lie{60, 1'000'000, 4, "internal snapshots"},
                    Lie{72, 1ULL << 40, 8, "a feature without a name"},
                    Lie{88, kQcow2AutoclearRawData, 8, "it has none"},
                    Lie{96, 7, 4, "refcounts of 2^7"}, Lie{100, 96, 4, "a header of 96"},
                    Lie{104, 1, 1, "compression"}, Lie{116, 1 << 20, 4, "does not fit"}));

TEST_P(Qcow2HeaderTest, IsRefusedWithACause) {
  const Lie lie = GetParam();
  Qcow2Rig rig(1);
  make_image(rig);
  if (lie.bytes == 8) patch<uint64_t>(rig, lie.offset, lie.value);
  if (lie.bytes == 4) patch<uint32_t>(rig, lie.offset, static_cast<uint32_t>(lie.value));
  if (lie.bytes == 1) patch<uint8_t>(rig, lie.offset, static_cast<uint8_t>(lie.value));
  auto opened = rig.try_open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().what(), HasSubstr(lie.said));
  EXPECT_THAT(opened.error().what(), HasSubstr("test.qcow2"));
}

TEST(Qcow2HostileTest, EveryPrefixOfAHeaderIsRefused) {
  Qcow2Rig rig(1);
  make_image(rig);
  const auto bytes = std::span(rig.file.bytes());
  for (size_t length = 0; length < 130; ++length) {
    auto header = parse_qcow2_header(bytes.first(length), length, "short");
    EXPECT_FALSE(header) << length;
  }
}

TEST(Qcow2HostileTest, AnUnknownFeatureIsNamedAsTheImageDoes) {
  Qcow2Rig rig(1);
  make_image(rig);
  // The first entry of the feature name table, which follows the header, becomes bit 33.
  patch<uint8_t>(rig, 112 + 8 + 1, 33);
  patch<uint64_t>(rig, 72, 1ULL << 33);
  auto opened = rig.try_open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().what(), HasSubstr("\"dirty bit\" (incompatible feature 33)"));
}

/// The write to byte 0 of the disk fails; the metadata is as it was but for the corrupt bit.
void expect_damage(Qcow2Rig& rig, Kind kind, uint64_t offset, uint64_t length) {
  rig.open();
  std::vector<std::byte> before = rig.file.bytes();
  EXPECT_EQ(rig.run(kind, offset, length, true), EIO);
  while (rig.queue.end_one()) {
  }
  EXPECT_EQ(rig.run(Kind::kWrite, kSize / 2, 512), EIO) << "it is read-only now";
  EXPECT_EQ(rig.flush(), EIO);
  rig.close();
  store_big_endian(before, 72, look<uint64_t>(rig, 72));
  before.resize(rig.file.bytes().size());
  EXPECT_TRUE(before == rig.file.bytes());
  EXPECT_EQ(look<uint64_t>(rig, 72) & kQcow2IncompatibleCorrupt, kQcow2IncompatibleCorrupt);
  auto opened = rig.try_open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().what(), HasSubstr("corrupt"));
  rig.open(true);
  EXPECT_EQ(rig.run(Kind::kRead, kSize / 2, 512), 0);
}

TEST(Qcow2HostileTest, DataIsNeverWrittenOverMetadata) {
  for (uint64_t cluster : {1, 2, 3, 4}) {
    Qcow2Rig rig(1);
    make_image(rig);
    patch<uint64_t>(rig, 4 * kCluster, cluster * kCluster | kQcow2Copied);
    expect_damage(rig, Kind::kWrite, 0, 512);
  }
}

TEST(Qcow2HostileTest, MetadataIsNeverFreedAsData) {
  Qcow2Rig rig(1);
  make_image(rig);
  patch<uint64_t>(rig, 4 * kCluster, 3 * kCluster | kQcow2Copied);
  expect_damage(rig, Kind::kDiscard, 0, kCluster);
}

TEST(Qcow2HostileTest, MetadataWithoutARefcountIsNotHandedOut) {
  Qcow2Rig rig(1);
  make_image(rig);
  patch<uint16_t>(rig, 2 * kCluster + 3 * 2, 0);  // of the L1 table
  expect_damage(rig, Kind::kWrite, kCluster, 512);
}

TEST(Qcow2HostileTest, TablesThatReferToThemselves) {
  for (uint64_t table : {kCluster * 3, kCluster, uint64_t{512}, uint64_t{1} << 50}) {
    Qcow2Rig rig(1);
    make_image(rig);
    patch<uint64_t>(rig, 3 * kCluster, table | kQcow2Copied);
    rig.open();
    EXPECT_EQ(rig.run(Kind::kRead, 0, 512), EIO) << table;
  }
  Qcow2Rig rig(1);
  make_image(rig);
  patch<uint64_t>(rig, kCluster, kCluster);  // a refcount block in the table's place
  rig.open();
  EXPECT_EQ(rig.run(Kind::kWrite, kCluster, 512), EIO);
}

// Nothing maps the bytes, and something has.
TEST(Qcow2HostileTest, AnEntryThatHasLostWhatItNamesIsNoHole) {
  for (uint64_t place : {3 * kCluster, 4 * kCluster}) {
    for (Kind kind : {Kind::kRead, Kind::kWrite, Kind::kWriteZeroes, Kind::kDiscard}) {
      Qcow2Rig rig(1);
      make_image(rig);
      patch<uint64_t>(rig, place, kQcow2Copied);
      rig.open();
      EXPECT_EQ(rig.run(kind, 0, kCluster, true), EIO) << place;
      while (rig.queue.end_one()) {
      }
      rig.close();
      EXPECT_EQ(look<uint64_t>(rig, place), kQcow2Copied);
      EXPECT_EQ(look<uint64_t>(rig, 72), kQcow2IncompatibleCorrupt);
    }
  }
}

// Of an image that was copied in part.
TEST(Qcow2HostileTest, AClusterBehindTheFileIsNoHole) {
  for (Kind kind : {Kind::kRead, Kind::kWrite}) {
    Qcow2Rig rig(1);
    make_image(rig);
    rig.file.resize(5 * kCluster + 1);
    rig.open();
    EXPECT_EQ(rig.read(0, 4), std::string("d\0\0\0", 4)) << "the last one may be short";
    EXPECT_EQ(rig.run(kind, 0, 512), 0);
    rig.close();
    rig.file.resize(5 * kCluster);
    rig.open();
    EXPECT_EQ(rig.run(kind, 0, 512), EIO);
    EXPECT_EQ(rig.run(Kind::kWrite, kCluster, 512), EIO) << "it is read-only now";
    EXPECT_EQ(rig.run(Kind::kRead, kCluster, 512), 0);
    while (rig.queue.end_one()) {
    }
    rig.close();
    EXPECT_EQ(look<uint64_t>(rig, 72), kQcow2IncompatibleCorrupt);
  }
}

TEST(Qcow2HostileTest, ACompressedClusterThatIsNone) {
  Qcow2Rig rig(1);
  make_image(rig);
  patch<uint64_t>(rig, 4 * kCluster, kQcow2Compressed | (0x3FULL << 56) | (5 * kCluster));
  rig.open();
  EXPECT_EQ(rig.run(Kind::kRead, 0, 512), EIO);
  EXPECT_EQ(rig.run(Kind::kRead, kCluster, 512), 0);
}

TEST(Qcow2HostileTest, ADirtyImageGetsItsRefcountsAnew) {
  Qcow2Rig rig(1);
  make_image(rig);
  patch<uint64_t>(rig, 72, kQcow2IncompatibleDirty);
  patch<uint64_t>(rig, 80, kQcow2CompatibleLazyRefcounts);
  patch<uint16_t>(rig, 2 * kCluster + 5 * 2, 0);    // of the data
  patch<uint16_t>(rig, 2 * kCluster + 100 * 2, 7);  // of nothing
  rig.open();
  EXPECT_EQ(rig.read(0, 4), "data");
  EXPECT_EQ(rig.write(kCluster, "more"), 0);
  rig.close();
  rig.expect_clean();
  EXPECT_EQ(look<uint64_t>(rig, 72), 0u);
  rig.open();
  EXPECT_EQ(rig.read(0, 4) + rig.read(kCluster, 4), "datamore");
}

struct BadEntry {
  Qcow2CreateOptions options;
  uint64_t offset;
  uint64_t flipped;
  const char* said;
};

class Qcow2EntryTest : public testing::TestWithParam<BadEntry> {};

INSTANTIATE_TEST_SUITE_P(
    , Qcow2EntryTest,
    testing::Values(
        BadEntry{{.size = kSize}, 64, 8, "the snapshot table at 0x8 is not aligned"},
        BadEntry{{.size = kSize}, kCluster, 1, "the entry 0 of the refcount table, 0x20001, has"},
        BadEntry{{.size = kSize}, kCluster + 8, 256, "the entry 1 of the refcount table, 0x100"},
        BadEntry{{.size = kSize}, 3 * kCluster, 1, "the L1 entry 0x8000000000040001 at 0x30000"},
        BadEntry{{.size = kSize}, 3 * kCluster, 1ULL << 62, "at 0x30000 has reserved bits"},
        BadEntry{{.size = kSize}, 3 * kCluster, 0x40000, "but no table"},
        BadEntry{{.size = kSize}, 4 * kCluster, 2, "for 0x0 has reserved bits set: 0x2"},
        BadEntry{{.size = kSize}, 4 * kCluster + 8, 1ULL << 61, "0x10000 has reserved bits set"},
        BadEntry{{.size = kSize}, 4 * kCluster, 0x50000, "0x8000000000000000 for 0x0 is broken"},
        BadEntry{{.size = kSize}, 4 * kCluster, 0x50001, "0x8000000000000001 for 0x0 is broken"},
        BadEntry{{.size = kSize, .version = 2, .refcount_bits = 16},
                 4 * kCluster + 8,
                 kQcow2Zero,
                 "0x10000 has reserved bits set: 0x1"},
        BadEntry{{.size = kSize, .extended_l2 = true}, 4 * kCluster, 1, "bits set: 0x1"},
        BadEntry{{.size = kSize, .extended_l2 = true}, 4 * kCluster, 0x50000, "is broken"}));

// What is unused then may be what the entry has named before it was damaged.
TEST_P(Qcow2EntryTest, IsDamageAndNothingIsFreed) {
  const BadEntry& bad = GetParam();
  Qcow2Rig rig(1);
  rig.make(bad.options);
  rig.open();
  ASSERT_EQ(rig.write(0, "data"), 0);
  rig.close();
  rig.expect_clean();
  patch<uint64_t>(rig, bad.offset, look<uint64_t>(rig, bad.offset) ^ bad.flipped);
  const std::vector<std::byte> before = rig.file.bytes();
  const Qcow2Report report = rig.check(Qcow2Repair::kLeaks);
  EXPECT_GT(report.errors, 0u);
  EXPECT_THAT(report.messages.front(), HasSubstr(bad.said));
  EXPECT_TRUE(before == rig.file.bytes());
}

TEST(Qcow2LayoutTest, ReservedBitsOfCompressedClusters) {
  const uint64_t compressed = kQcow2Compressed | 0x12345;
  const Qcow2Layout small{.cluster_bits = 9};
  EXPECT_EQ(small.reserved_bits({.word = compressed | (1ULL << 61)}), 0u) << "a sector more";
  EXPECT_EQ(small.reserved_bits({.word = compressed | (1ULL << 56)}), 1ULL << 56);
  const Qcow2Layout usual{.cluster_bits = 16};
  EXPECT_EQ(usual.reserved_bits({.word = compressed | (0xFFULL << 54)}), 0u);
  const Qcow2Layout extended{.cluster_bits = 16, .extended_l2 = true};
  EXPECT_EQ(extended.reserved_bits({.word = compressed, .bitmap = 4}), 4u);
}

TEST(Qcow2HostileTest, CheckNamesErrorsAndRepairsLeaks) {
  Qcow2Rig rig(1);
  make_image(rig);
  patch<uint16_t>(rig, 2 * kCluster + 20 * 2, 1);
  EXPECT_EQ(rig.check().leaks, 1u);
  EXPECT_EQ(rig.check(Qcow2Repair::kLeaks).leaks, 1u);
  rig.expect_clean();
  patch<uint64_t>(rig, 4 * kCluster, 3 * kCluster | kQcow2Copied);
  const Qcow2Report report = rig.check(Qcow2Repair::kLeaks);
  EXPECT_GT(report.errors, 0u);
  EXPECT_THAT(report.messages.front(), HasSubstr("overlaps metadata at 0x30000"));
}

}  // namespace
}  // namespace crosvm
