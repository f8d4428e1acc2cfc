#include "disk/open_disk.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "disk/composite/composite_descriptor.h"
#include "disk/image_names.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_create.h"
#include "disk/zstd/seekable_writer.h"

namespace crosvm {
namespace {

using testing::HasSubstr;
using Kind = DiskRequest::Kind;
namespace fs = std::filesystem;

struct Transfer final : DiskRequest {
  Transfer(DiskRequest::Kind what, uint64_t at, std::string& text) {
    kind = what;
    offset = at;
    length = text.size();
    buffers = {GuestSlice::over(std::as_writable_bytes(std::span(text)))};
  }
  void disk_done(int error) override { result = error; }
  int result = -1;
};

/// Images in a folder of their own, opened as a device does.
class OpenDiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "open_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override {
    disk_.reset();
    fs::remove_all(root_);
  }
  void file(const std::string& name, std::string_view contents) {
    std::ofstream(root_ / name, std::ios::binary) << contents;
  }
  Result<void> open(const std::string& name, bool read_only = false, bool direct = false) {
    const std::string path = root_ / name;
    disk_.reset();
    ImageNames names({.path = path, .allowed = {}, .read_only = read_only});
    auto files = TRY(AsyncFiles::create(*loop_, {}));
    auto image = TRY(open_image_file(path, {.read_only = read_only, .direct = direct}));
    disk_ = TRY(open_disk(std::make_shared<const Fd>(std::move(image)),
                          {.object = name, .read_only = read_only}, files, &names));
    return {};
  }
  int run(Transfer& transfer) {
    disk_->start(transfer);
    disk_->submit();
    while (transfer.result < 0) EXPECT_TRUE(loop_->run_once(std::chrono::seconds(10)));
    return transfer.result;
  }
  std::string read(uint64_t offset, size_t length) {
    std::string text(length, '?');
    Transfer transfer(DiskRequest::Kind::kRead, offset, text);
    EXPECT_EQ(run(transfer), 0);
    return text;
  }
  int write(uint64_t offset, std::string text) {
    Transfer transfer(DiskRequest::Kind::kWrite, offset, text);
    return run(transfer);
  }

  fs::path root_;
  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
  std::unique_ptr<Disk> disk_;
};

TEST_F(OpenDiskTest, ACompositeDiskIsItsParts) {
  file("a.img", std::string(8192, 'a'));
  file("b.img", std::string(4096, 'b'));
  CompositeDescriptor descriptor{.length = 12288, .components = {}};
  descriptor.components.push_back({.path = "a.img", .offset = 0});
  descriptor.components.push_back({.path = "b.img", .offset = 8192, .writable = true});
  file("all.img", composite_bytes(descriptor));
  auto opened = open("all.img");
  ASSERT_TRUE(opened) << opened.error().what();
  EXPECT_EQ(disk_->size(), 12288u);
  EXPECT_EQ(read(8192 - 2, 4), "aabb");
  EXPECT_EQ(write(8192, std::string(512, 'c')), 0);
  EXPECT_EQ(write(0, std::string(512, 'c')), EROFS);
  EXPECT_EQ(read(8192 + 510, 4), "ccbb");
}

TEST_F(OpenDiskTest, AZstdFileIsWhatItMakes) {
  const std::string path = root_ / "disk.zst";
  Fd made = *open_path(path, O_CREAT | O_WRONLY);
  auto writer = *SeekableZstdWriter::create(made, path, {});
  const std::string half(300'000, 'x');
  ASSERT_TRUE(writer.append(std::as_bytes(std::span(half))));
  ASSERT_TRUE(writer.append(std::as_bytes(std::span(std::string_view("the end")))));
  ASSERT_TRUE(writer.finish());
  auto opened = open("disk.zst", true);
  ASSERT_TRUE(opened) << opened.error().what();
  EXPECT_EQ(disk_->size(), half.size() + 7);
  EXPECT_EQ(read(half.size() - 1, 8), "xthe end");
}

TEST_F(OpenDiskTest, AChainThatGoesRoundEnds) {
  CompositeDescriptor descriptor{.length = 4096, .components = {}};
  descriptor.components.push_back({.path = "self.img", .offset = 0});
  file("self.img", composite_bytes(descriptor));
  auto opened = open("self.img", true);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().what(), HasSubstr("circle"));
}

TEST_F(OpenDiskTest, APartElsewhereIsRefused) {
  CompositeDescriptor descriptor{.length = 4096, .components = {}};
  descriptor.components.push_back({.path = "/etc/passwd", .offset = 0});
  file("evil.img", composite_bytes(descriptor));
  auto opened = open("evil.img", true);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().what(), HasSubstr("evil.img: an image names '/etc/passwd', which lies "
                                               "outside the folder of"));
  EXPECT_THAT(opened.error().what(), HasSubstr("give allow-backing=/etc/passwd"));
}

TEST_F(OpenDiskTest, WhatCannotBeWrittenWantsRo) {
  file("sparse.img", std::string("\x3a\xff\x26\xed\1\0\0\0", 8));
  auto opened = open("sparse.img");
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().what(), HasSubstr("android-sparse images cannot be written; add ro"));
  EXPECT_FALSE(open("sparse.img", true));  // and it is cut short
}

TEST_F(OpenDiskTest, AQcow2ImageThatEndsAnywhereIsReadAndWrittenDirectly) {
  file("a.qcow2", "");
  const std::string path = root_ / "a.qcow2";
  if (!open_path(path, O_RDWR | O_DIRECT)) GTEST_SKIP() << "no direct I/O in " << root_;
  auto image =
      make_sync_file(std::make_shared<const Fd>(std::move(*open_path(path, O_RDWR))), path);
  ASSERT_TRUE(image);
  ASSERT_TRUE(create_qcow2(**image, {.size = 1 << 20, .cluster_size = 512}, path));
  ASSERT_TRUE((*image)->write_at((*image)->size(), std::array{std::byte{0}}));
  ASSERT_NE((*image)->size() % 512, 0u);
  std::string text(70'001, 'd');
  for (const bool read_only : {true, false}) {
    const auto opened = open("a.qcow2", read_only, true);
    ASSERT_TRUE(opened) << opened.error().what();
    std::string read(512, '?');
    Transfer reading(Kind::kRead, 512, read);
    EXPECT_EQ(run(reading), 0);
    EXPECT_EQ(read, std::string(512, '\0'));
    if (read_only) continue;
    Transfer writing(Kind::kWrite, 3, text);
    EXPECT_EQ(run(writing), 0);
  }
  disk_.reset();  // before it is looked at
  const auto report = check_qcow2(**image, path, Qcow2Repair::kNothing);
  ASSERT_TRUE(report) << report.error().what();
  EXPECT_EQ(report->errors + report->leaks, 0u);
  ASSERT_TRUE(open("a.qcow2", true, true));
  std::string read(text.size(), '?');
  Transfer reading(Kind::kRead, 3, read);
  EXPECT_EQ(run(reading), 0);
  EXPECT_TRUE(read == text);
}

TEST_F(OpenDiskTest, ADirtyQcow2ImageIsWrittenToAfterItsRefcountsWereCountedAnew) {
  file("a.qcow2", "");
  const std::string path = root_ / "a.qcow2";
  auto image =
      make_sync_file(std::make_shared<const Fd>(std::move(*open_path(path, O_RDWR))), path);
  ASSERT_TRUE(image);
  ASSERT_TRUE(create_qcow2(**image, {.size = 1 << 20}, path));
  ASSERT_TRUE((*image)->write_at(79, std::array{std::byte{1}}));  // the dirty bit
  const auto opened = open("a.qcow2");
  ASSERT_TRUE(opened) << opened.error().what();
  EXPECT_EQ(write(0, std::string(512, 'd')), 0);
  EXPECT_EQ(write(512 << 10, std::string(512, 'e')), 0);
  disk_.reset();  // before it is looked at
  const auto report = check_qcow2(**image, path, Qcow2Repair::kNothing);
  ASSERT_TRUE(report) << report.error().what();
  EXPECT_EQ(report->errors + report->leaks, 0u);
  ASSERT_TRUE(open("a.qcow2"));
  EXPECT_EQ(read(511, 2), std::string("d\0", 2));
}

}  // namespace
}  // namespace crosvm
