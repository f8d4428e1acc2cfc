// Disks of other formats than raw, and what their images name.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/format.h"
#include "devices/block/block_device.h"
#include "devices/block/block_test_disk.h"
#include "disk/async_file.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_create.h"
#include "jail/rig/worker_host.h"

namespace crosvm {
namespace {

using namespace block_test;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr uint64_t kBytes = 4 << 20;

class BlockFormatsTest : public ::testing::TestWithParam<RigPlace> {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "formats_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    fs::create_directory(root_ / "images");
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string file(const std::string& name, const std::string& contents) {
    std::ofstream(root_ / name, std::ios::binary) << contents;
    return root_ / name;
  }
  std::unique_ptr<SyncFile> sync_file(const std::string& path, int flags = 0) {
    auto fd = open_path(path, O_RDWR | flags);
    EXPECT_TRUE(fd);
    return std::move(*make_sync_file(std::make_shared<const Fd>(std::move(*fd)), path));
  }
  std::string overlay(const std::string& backing) {
    const std::string path = root_ / "images/overlay";
    EXPECT_TRUE(create_qcow2(*sync_file(path, O_CREAT),
                             {.size = kBytes, .backing_name = backing, .backing_format = "raw"},
                             path));
    return path;
  }
  Result<Rig> rig(const std::string& text, uint64_t refused_features = 0) {
    const DeviceType type = device_type<BlockFactory>();
    return Rig::create(type, text, TRY(type.open(text)),
                       {.place = GetParam(), .refused_features = refused_features});
  }
  /// The start of a sector, as it would be found after a loss of power.
  std::string stable(const std::string& path, uint64_t sector) {
    const fs::path copy = root_ / "images/copy";
    fs::copy_file(path, copy, fs::copy_options::overwrite_existing);
    auto made = rig("ro,path=" + copy.string());
    EXPECT_TRUE(made) << made.error().what();
    return std::string(as_text(read_at(made->driver(0), sector, 512).bytes).substr(0, 4));
  }

  fs::path root_;
};

INSTANTIATE_TEST_SUITE_P(, BlockFormatsTest, testing::Values(RigPlace::kThread, RigPlace::kWorker),
                         [](const auto& rig) { return name_of(rig.param); });

TEST_P(BlockFormatsTest, AnOverlayKeepsWhatIsWritten) {
  const std::string base = file("images/base", std::string(kBytes, 'b'));
  const std::string path = overlay("base");
  {
    auto made = rig("path=" + path);
    ASSERT_TRUE(made) << made.error().what();
    RigDriver& driver = made->driver(0);
    EXPECT_EQ(as_text(read_at(driver, 100, 512).bytes).substr(0, 4), "bbbb");
    EXPECT_EQ(write_at(driver, 100, std::string(1024, 'w')), VIRTIO_BLK_S_OK);
    EXPECT_EQ(as_text(read_at(driver, 101, 1024).bytes).substr(510, 4), "wwbb");
    EXPECT_EQ(ask(driver, {header(VIRTIO_BLK_T_FLUSH), writable(1)}).last_byte(), VIRTIO_BLK_S_OK);
  }
  auto report = check_qcow2(*sync_file(path), path, Qcow2Repair::kNothing);
  ASSERT_TRUE(report) << report.error().what();
  EXPECT_EQ(report->errors + report->leaks, 0u);
  EXPECT_GE(report->data_clusters, 1u);
  auto again = rig("ro,path=" + path);
  ASSERT_TRUE(again) << again.error().what();
  EXPECT_EQ(as_text(read_at(again->driver(0), 101, 1024).bytes).substr(510, 4), "wwbb");
}

TEST_P(BlockFormatsTest, ADriverWithoutFlushLosesNothing) {
  const std::string base = file("images/base", std::string(kBytes, 'b'));
  const std::string path = overlay("base");
  auto made = rig("path=" + path, uint64_t{1} << VIRTIO_BLK_F_FLUSH);
  ASSERT_TRUE(made) << made.error().what();
  RigDriver& driver = made->driver(0);
  EXPECT_EQ(write_at(driver, 100, std::string(512, 'w')), VIRTIO_BLK_S_OK);
  EXPECT_EQ(stable(path, 100), "wwww");
  const Range cluster{.sector = 0, .sectors = 128, .flags = 0};
  for (const uint32_t type : {VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD}) {
    EXPECT_EQ(write_at(driver, 0, std::string(512, 'w')), VIRTIO_BLK_S_OK);
    EXPECT_EQ(ask(driver, {header(type), readable(cluster), writable(1)}).last_byte(),
              VIRTIO_BLK_S_OK);
    EXPECT_EQ(stable(path, 0), std::string(4, '\0'));
  }
}

// As docs/devices/block.md says of UNMAP.
TEST_P(BlockFormatsTest, WithoutSparseZeroedClustersKeepTheirSpace) {
  for (const bool sparse : {true, false}) {
    const std::string path = root_ / "images/plain";
    EXPECT_TRUE(create_qcow2(*sync_file(path, O_CREAT | O_TRUNC), {.size = kBytes}, path));
    {
      auto made = rig("path=" + path + (sparse ? "" : ",sparse=false"));
      ASSERT_TRUE(made) << made.error().what();
      RigDriver& driver = made->driver(0);
      EXPECT_EQ(write_at(driver, 0, std::string(128 * 512, 'w')), VIRTIO_BLK_S_OK);
      const Range cluster{.sector = 0, .sectors = 128, .flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP};
      EXPECT_EQ(ask(driver, {header(VIRTIO_BLK_T_WRITE_ZEROES), readable(cluster), writable(1)})
                    .last_byte(),
                VIRTIO_BLK_S_OK);
      EXPECT_EQ(as_text(read_at(driver, 0, 512).bytes).substr(0, 4), std::string(4, '\0'));
    }
    const auto report = check_qcow2(*sync_file(path), path, Qcow2Repair::kNothing);
    ASSERT_TRUE(report) << report.error().what();
    EXPECT_EQ(report->data_clusters, sparse ? 0u : 1u);
  }
}

TEST_P(BlockFormatsTest, NoFileOutsideOfTheFolder) {
  const std::string secret = file("secret", std::string(kBytes, 's'));
  const std::string path = overlay("../secret");
  auto refused = rig("path=" + path);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what(),
              HasSubstr("an image names '../secret', which lies outside the folder of"));
  auto made = rig(format_text("path={},allow-backing={}", path, secret));
  ASSERT_TRUE(made) << made.error().what();
  EXPECT_EQ(as_text(read_at(made->driver(0), 0, 512).bytes).substr(0, 4), "ssss");
}

TEST_P(BlockFormatsTest, TheFormatMayBeSaid) {
  const std::string path = overlay("base");  // which is not there
  auto missing = rig("path=" + path);
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().what(), HasSubstr("No such file"));
  auto raw = rig("format=raw,path=" + path);
  ASSERT_TRUE(raw) << raw.error().what();
  EXPECT_EQ(as_text(read_at(raw->driver(0), 0, 512).bytes).substr(0, 3), "QFI");
}

TEST(BlockFormatsRestartTest, WhatIsInMemoryAloneIsNotStartedAnew) {
  TestDisk disk(0);
  auto image = make_sync_file(borrowed(disk.fd()), disk.path());
  ASSERT_TRUE(image);
  ASSERT_TRUE(create_qcow2(**image, {.size = kBytes}, disk.path()));
  auto host = WorkerHost::create({.restart_devices = {"block"}});
  ASSERT_TRUE(host) << host.error().what();
  auto backend = (*host)->run("block0", device_type<BlockFactory>(), disk.text());
  ASSERT_FALSE(backend);
  EXPECT_THAT(backend.error().what(), HasSubstr("cannot be started anew"));
  EXPECT_TRUE((*host)->run("block1", device_type<BlockFactory>(), disk.text(",ro,lock=false")));
}

}  // namespace
}  // namespace crosvm
