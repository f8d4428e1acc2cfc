// Small images that would take much time or memory: both follow what the image has.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <array>
#include <cerrno>
#include <string>

#include "disk/image_file.h"
#include "disk/qcow2/big_endian.h"
#include "disk/qcow2/qcow2_metadata.h"
#include "disk/qcow2/qcow2_rig.h"
#include "disk/temporary_file.h"

namespace crosvm {
namespace {

using test::MemoryFile;
using test::Qcow2Rig;
using testing::HasSubstr;
using Kind = DiskRequest::Kind;

constexpr uint64_t kCluster = 65536;  // header, refcount table, block, L1, L2, data follow

/// Counts what is read of a file, which may be as a block device is.
class CountedFile final : public SyncFile {
 public:
  explicit CountedFile(std::unique_ptr<SyncFile> file) : file_(std::move(file)) {}

  uint64_t size() const override { return file_->size(); }
  Result<void> read_at(uint64_t offset, std::span<std::byte> to) override {
    bytes += to.size();
    return file_->read_at(offset, to);
  }
  bool is_hole(uint64_t offset, uint64_t length) override { return file_->is_hole(offset, length); }
  Result<void> write_at(uint64_t offset, std::span<const std::byte> from) override {
    if (has_fixed_size && (offset > size() || from.size() > size() - offset)) {
      return fail(Error::from_errno("writing", "test.qcow2", ENOSPC));
    }
    return file_->write_at(offset, from);
  }
  Result<void> flush() override { return file_->flush(); }
  Result<void> resize(uint64_t size) override { return file_->resize(size); }
  Result<void> allocate(uint64_t offset, uint64_t length) override {
    return file_->allocate(offset, length);
  }
  void punch(uint64_t offset, uint64_t length) override { file_->punch(offset, length); }

  uint64_t bytes = 0;
  bool has_fixed_size = false;

 private:
  std::unique_ptr<SyncFile> file_;
};

template <class T>
void patch(Qcow2Rig& rig, uint64_t offset, T value) {
  std::array<std::byte, sizeof(T)> bytes;
  store_big_endian(bytes, 0, value);
  rig.file.write(offset, bytes);
}

TEST(Qcow2CheckTest, EveryPartOfALargeTableIsLookedAt) {
  constexpr uint64_t kLarge = 2 << 20;
  constexpr uint64_t kIndex = 100'000;
  Qcow2Rig rig(1);
  rig.make({.size = kLarge * 200'000, .cluster_size = kLarge});
  rig.open();
  ASSERT_EQ(rig.write(kIndex * kLarge, "data"), 0);
  rig.close();
  rig.expect_clean();
  EXPECT_EQ(rig.check().data_clusters, 1u);
  const auto l1 = load_big_endian<uint64_t>(rig.file.bytes(), 40);
  const auto l2 = load_big_endian<uint64_t>(rig.file.bytes(), l1) & kQcow2OffsetMask;
  const auto entry = load_big_endian<uint64_t>(rig.file.bytes(), l2 + kIndex * 8);
  patch<uint64_t>(rig, l2 + kIndex * 8, entry & ~kQcow2Copied);
  EXPECT_EQ(rig.check().errors, 1u);
  patch<uint64_t>(rig, 72, kQcow2IncompatibleDirty);
  rig.open();
  EXPECT_EQ(rig.read(kIndex * kLarge, 4), "data");
  rig.close();
  rig.expect_clean();
  EXPECT_EQ(load_big_endian<uint64_t>(rig.file.bytes(), l2 + kIndex * 8), entry);
}

TEST(Qcow2CheckTest, ABlockDevicesRefcountsAreCountedAnewWhereItIsFree) {
  for (const uint64_t free : {uint64_t{8}, uint64_t{1}}) {
    Qcow2Rig rig(1);
    rig.make({.size = kCluster * kCluster / 8});
    rig.open();
    ASSERT_EQ(rig.write(0, "data"), 0);
    rig.close();
    rig.file.resize((6 + free) * kCluster + 512);
    patch<uint64_t>(rig, 72, kQcow2IncompatibleDirty);
    patch<uint16_t>(rig, 2 * kCluster + 5 * 2, 0);
    CountedFile file(test::make_memory_sync(rig.file));
    file.has_fixed_size = true;
    const auto rebuilt = rebuild_qcow2_refcounts(file, "test.qcow2");
    EXPECT_EQ(rebuilt.has_value(), free > 1);
    if (!rebuilt) {
      EXPECT_EQ(rebuilt.error().code(), std::errc::no_space_on_device);
    }
    EXPECT_EQ(file.size(), (6 + free) * kCluster + 512);
    rig.expect_clean();
    rig.open();
    EXPECT_EQ(rig.read(0, 4), "data");
  }
}

/// An image whose L1 entries all name one L2 table of one cluster, with the refcounts of that.
void share_table(Qcow2Rig& rig, uint64_t times) {
  constexpr uint64_t kCoverage = kCluster * kCluster / 8;
  rig.make({.size = kCoverage * times});
  rig.open();
  ASSERT_EQ(rig.write(0, "data"), 0);
  rig.close();
  rig.expect_clean();
  for (uint64_t i = 0; i < times; ++i) patch<uint64_t>(rig, 3 * kCluster + i * 8, 4 * kCluster);
  patch<uint64_t>(rig, 4 * kCluster, 5 * kCluster);
  for (const uint64_t cluster : {4, 5}) {
    patch<uint16_t>(rig, 2 * kCluster + cluster * 2, static_cast<uint16_t>(times));
  }
}

TEST(Qcow2CheckTest, ATableThatIsNamedOftenIsReadOnce) {
  Qcow2Rig rig(1);
  share_table(rig, 8000);
  CountedFile file(test::make_memory_sync(rig.file));
  const auto report = check_qcow2(file, "test.qcow2", Qcow2Repair::kNothing);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->errors, 0u) << report->messages.front();
  EXPECT_EQ(report->leaks, 0u) << report->messages.front();
  EXPECT_LT(file.bytes, 16 * kCluster);
}

TEST(Qcow2CheckTest, UsesThroughASharedTableAreAllCounted) {
  Qcow2Rig rig(1);
  share_table(rig, 3);
  rig.expect_clean();
  patch<uint16_t>(rig, 2 * kCluster + 5 * 2, 2);
  EXPECT_EQ(rig.check().errors, 1u);
  patch<uint64_t>(rig, 72, kQcow2IncompatibleDirty);
  patch<uint64_t>(rig, 80, kQcow2CompatibleLazyRefcounts);
  rig.expect_clean();  // they are to be counted anew
  rig.open();
  rig.close();
  rig.expect_clean();
}

TEST(Qcow2CheckTest, MoreUsesThanCanBeCountedAreDamage) {
  Qcow2Rig rig(1);
  rig.make({.size = uint64_t{70'000} * 512 * 64, .cluster_size = 512, .refcount_bits = 32});
  rig.open();
  ASSERT_EQ(rig.write(0, "data"), 0);
  rig.close();
  const auto l1 = load_big_endian<uint64_t>(rig.file.bytes(), 40);
  const auto l2 = load_big_endian<uint64_t>(rig.file.bytes(), l1) & kQcow2OffsetMask;
  for (uint64_t i = 0; i < 70'000; ++i) patch<uint64_t>(rig, l1 + i * 8, l2);
  const Qcow2Report report = rig.check();
  EXPECT_GT(report.errors, 0u);
  EXPECT_THAT(report.messages, testing::Contains(HasSubstr("more uses than any image needs")));
  patch<uint64_t>(rig, 72, kQcow2IncompatibleDirty);
  const auto opened = rig.try_open();
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().what(), HasSubstr("more uses than any image needs"));
}

TEST(Qcow2CheckTest, ATableOfADataFileIsNamedOnce) {
  Qcow2Rig rig(1);
  rig.data_file = std::make_unique<MemoryFile>();
  rig.make({.size = kCluster * kCluster, .data_file_name = "data"});
  rig.open();
  ASSERT_EQ(rig.write(0, "data"), 0);
  rig.close();
  rig.expect_clean();
  const auto entry = load_big_endian<uint64_t>(rig.file.bytes(), 3 * kCluster);
  patch<uint64_t>(rig, 3 * kCluster + 8, entry);
  const Qcow2Report report = rig.check();
  EXPECT_GT(report.errors, 0u);
  EXPECT_THAT(report.messages, testing::Contains(HasSubstr("named 2 times")));
}

/// An image with one cluster of data and a snapshot that shares it with the disk.
void take_snapshot(Qcow2Rig& rig) {
  rig.make({.size = kCluster * kCluster / 8});
  rig.open();
  ASSERT_EQ(rig.write(0, "data"), 0);
  rig.close();
  rig.expect_clean();
  rig.file.resize(8 * kCluster);
  patch<uint64_t>(rig, 3 * kCluster, 4 * kCluster);
  patch<uint64_t>(rig, 4 * kCluster, 5 * kCluster);
  patch<uint64_t>(rig, 6 * kCluster, 4 * kCluster);  // its L1 table
  patch<uint64_t>(rig, 7 * kCluster, 6 * kCluster);  // the table of snapshots
  patch<uint32_t>(rig, 7 * kCluster + 8, 1);
  patch<uint32_t>(rig, 60, 1);
  patch<uint64_t>(rig, 64, 7 * kCluster);
  for (const uint64_t cluster : {4, 5, 6, 7}) {
    patch<uint16_t>(rig, 2 * kCluster + cluster * 2, cluster < 6 ? 2 : 1);
  }
  rig.expect_clean();
}

TEST(Qcow2CheckTest, WhatASnapshotsTableSaysOfItsClustersIsNotBelieved) {
  for (const Kind kind : {Kind::kWrite, Kind::kWriteZeroes}) {
    for (const uint64_t length : {uint64_t{512}, kCluster}) {
      Qcow2Rig rig(1);
      take_snapshot(rig);
      patch<uint64_t>(rig, 4 * kCluster, 5 * kCluster | kQcow2Copied);
      EXPECT_EQ(rig.check().errors, 1u);
      rig.open();
      ASSERT_EQ(rig.run(kind, 0, length), 0);
      EXPECT_EQ(rig.read(0, 4), std::string(4, '\0'));
      EXPECT_EQ(rig.write(0, "anew"), 0);
      EXPECT_EQ(rig.read(0, 4), "anew");
      rig.close();
      std::string kept(4, '?');
      rig.file.read(5 * kCluster, std::as_writable_bytes(std::span(kept)));
      EXPECT_EQ(kept, "data");
      EXPECT_EQ(rig.check().errors + rig.check().leaks, 0u) << rig.check().messages.front();
    }
  }
}

TEST(Qcow2CheckTest, WhatADeletedSnapshotLeavesIsLeaked) {
  Qcow2Rig rig(1);
  take_snapshot(rig);
  patch<uint32_t>(rig, 60, 0);
  patch<uint64_t>(rig, 64, 0);
  Qcow2Report report = rig.check();
  EXPECT_EQ(report.errors, 0u) << report.messages.front();
  EXPECT_EQ(report.leaks, 4u);
  report = rig.check(Qcow2Repair::kLeaks);
  EXPECT_EQ(report.errors, 0u) << report.messages.front();
  rig.expect_clean();
  EXPECT_EQ(load_big_endian<uint64_t>(rig.file.bytes(), 3 * kCluster), 4 * kCluster | kQcow2Copied);
  rig.open();
  EXPECT_EQ(rig.read(0, 4), "data");
  rig.close();
  patch<uint64_t>(rig, 3 * kCluster, 4 * kCluster);
  EXPECT_EQ(rig.check().errors, 1u) << "of a table with the refcount 1";
}

/// A sparse file whose L1 entries name tables so many bytes apart. `snapshot_entries`: of the L1
/// table of a snapshot, which name others.
class SparseImage {
 public:
  SparseImage(uint64_t tables, uint64_t apart, uint64_t snapshot_entries = 0) : file_(0) {
    std::vector<std::byte> header(512);
    auto put = [&](size_t offset, auto value) { store_big_endian(header, offset, value); };
    const uint64_t size = tables * 64 * 512;
    put(0, uint32_t{0x514649fb});
    put(4, uint32_t{3});
    put(20, uint32_t{9});
    put(24, size);
    put(36, static_cast<uint32_t>(tables));
    put(40, kL1);
    put(48, uint64_t{512});
    put(56, uint32_t{1});
    put(60, uint32_t{snapshot_entries > 0 ? 1U : 0U});
    put(64, uint64_t{snapshot_entries > 0 ? 1024U : 0U});
    put(96, uint32_t{4});
    put(100, uint32_t{104});
    write(0, header);
    write_table(kL1, tables, kTables, apart);
    std::vector<std::byte> snapshot(40);
    store_big_endian(snapshot, 0, kSnapshotL1);
    store_big_endian(snapshot, 8, static_cast<uint32_t>(snapshot_entries));
    if (snapshot_entries > 0) write(1024, snapshot);
    const uint64_t first = kTables + tables * apart;
    write_table(kSnapshotL1, snapshot_entries, first, 512);
    EXPECT_EQ(::truncate(file_.path().c_str(), static_cast<off_t>(first + snapshot_entries * 512)),
              0);
  }
  void set_dirty() {
    std::array<std::byte, 8> bytes;
    store_big_endian(bytes, 0, kQcow2IncompatibleDirty);
    write(72, bytes);
  }
  std::unique_ptr<SyncFile> open() {
    auto image = open_image_file(file_.path(), {});
    EXPECT_TRUE(image);
    auto sync = make_sync_file(std::make_shared<const Fd>(std::move(*image)), "sparse.qcow2");
    EXPECT_TRUE(sync);
    return std::move(*sync);
  }

 private:
  static constexpr uint64_t kL1 = 1 << 20;
  static constexpr uint64_t kSnapshotL1 = 64 << 20;
  static constexpr uint64_t kTables = 128 << 20;

  void write(uint64_t offset, std::span<const std::byte> bytes) {
    ASSERT_TRUE(open()->write_at(offset, bytes));
  }
  void write_table(uint64_t offset, uint64_t entries, uint64_t first, uint64_t apart) {
    if (entries == 0) return;
    std::vector<std::byte> bytes(entries * 8);
    for (uint64_t i = 0; i < entries; ++i) {
      store_big_endian(bytes, i * 8, (first + i * apart) | kQcow2Copied);
    }
    write(offset, bytes);
  }

  test::TemporaryFile file_;
};

/// 0 where the allocator does not count.
size_t bytes_in_use() {
  const auto info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

TEST(Qcow2HostileSizeTest, TablesFarApartTakeLittleMemory) {
  SparseImage image(65536, 16 << 20);
  const size_t before = bytes_in_use();
  auto metadata = Qcow2Metadata::open(*image.open(), "sparse.qcow2", false, {});
  ASSERT_TRUE(metadata) << metadata.error().what();
  EXPECT_LT(bytes_in_use() - before, size_t{16} << 20);
}

TEST(Qcow2HostileSizeTest, TablesThatAreHolesAreNotRead) {
  constexpr uint64_t kTables = 65536;
  SparseImage image(kTables, 4096);
  image.set_dirty();
  CountedFile file(image.open());
  auto metadata = Qcow2Metadata::open(file, "sparse.qcow2", false, {});
  ASSERT_TRUE(metadata) << metadata.error().what();
  EXPECT_LT(file.bytes, kTables * 512 / 2) << "less than half of them";
}

TEST(Qcow2HostileSizeTest, CountsFarApartAreAnError) {
  SparseImage image(65536, 16 << 20);
  image.set_dirty();
  auto metadata = Qcow2Metadata::open(*image.open(), "sparse.qcow2", false, {});
  ASSERT_FALSE(metadata);
  EXPECT_EQ(metadata.error().code(), std::errc::not_supported);
  EXPECT_THAT(metadata.error().what(), HasSubstr("sparse.qcow2: its clusters lie so far apart"));
}

TEST(Qcow2HostileSizeTest, MoreTablesThanAnyDiskHasAreAnError) {
  SparseImage image(1, 512, MetadataMap::kMostClaimed);
  auto metadata = Qcow2Metadata::open(*image.open(), "sparse.qcow2", true, {});
  ASSERT_FALSE(metadata);
  EXPECT_EQ(metadata.error().code(), std::errc::not_supported);
  EXPECT_THAT(metadata.error().what(), HasSubstr("sparse.qcow2: more than 5500000 of its"));
  const auto report = check_qcow2(*image.open(), "sparse.qcow2", Qcow2Repair::kNothing);
  ASSERT_FALSE(report);
  EXPECT_THAT(report.error().what(), HasSubstr("sparse.qcow2: more than 5500000 of its"));
}

}  // namespace
}  // namespace crosvm
