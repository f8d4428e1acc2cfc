// The host's file system is full, or will not let a file grow: the guest gets errors, the image
// stays valid, and the disk works again when there is room.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <map>

#include "base/format.h"
#include "devices/block/block_device.h"
#include "devices/block/block_test_disk.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_create.h"

namespace crosvm {
namespace {

using namespace block_test;

constexpr uint64_t kBytes = 32 << 20;
constexpr size_t kBlock = 48 << 10;  // neither a cluster nor a part of one
constexpr uint64_t kBlocks = kBytes / kBlock;

/// A small file system in memory that is mounted nowhere; gone with its descriptor.
Result<Fd> make_small_file_system() {
  Fd made(static_cast<int>(::syscall(__NR_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  if (!made) return fail(Error::from_errno("making", "a file system"));
  if (::syscall(__NR_fsconfig, made.get(), FSCONFIG_SET_STRING, "size", "8m", 0) != 0 ||
      ::syscall(__NR_fsconfig, made.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return fail(Error::from_errno("configuring", "a file system"));
  }
  Fd root(static_cast<int>(::syscall(__NR_fsmount, made.get(), FSMOUNT_CLOEXEC, 0)));
  if (!root) return fail(Error::from_errno("mounting", "a file system"));
  return root;
}

struct Case {
  std::string_view name;
  RigPlace place;
  uint64_t cluster_size = 0;  // 0: a raw image
  std::string_view keys = "";
};

/// A disk that is larger than what there is room for.
class BlockFullTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    auto made = make_small_file_system();
    if (!made) GTEST_SKIP() << made.error().what();
    root_ = std::move(*made);
    fill(4 << 20);
    path_ = format_text("/proc/{}/fd/{}/disk", ::getpid(), root_.get());
    image_ = std::make_shared<const Fd>(
        Fd(::openat(root_.get(), "disk", O_RDWR | O_CREAT | O_CLOEXEC, 0600)));
    ASSERT_TRUE(*image_);
    if (GetParam().cluster_size == 0) {
      ASSERT_EQ(::ftruncate(image_->get(), kBytes), 0);
    } else {
      const Qcow2CreateOptions options{.size = kBytes, .cluster_size = GetParam().cluster_size};
      ASSERT_TRUE(create_qcow2(**make_sync_file(image_, path_), options, path_));
    }
    open();
  }
  void open() {
    const std::string text = format_text("path={}{}", path_, GetParam().keys);
    const DeviceType type = device_type<BlockFactory>();
    auto resources = type.open(text);
    ASSERT_TRUE(resources) << resources.error().what();
    auto rig = Rig::create(type, text, std::move(*resources), {.place = GetParam().place});
    ASSERT_TRUE(rig) << rig.error().what();
    rig_.emplace(std::move(*rig));
  }
  /// Takes up room, or gives it back.
  void fill(off_t bytes) {
    const Fd other(::openat(root_.get(), "other", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    ASSERT_TRUE(other);
    if (bytes > 0) {
      ASSERT_EQ(::posix_fallocate(other.get(), 0, bytes), 0);
    }
  }
  bool write_block(uint64_t block, char letter) {
    const bool done = write_at(rig_->driver(0), block * kBlock / 512,
                               std::string(kBlock, letter)) == VIRTIO_BLK_S_OK;
    if (done) written_[block] = letter;
    if (!done) written_.erase(block);  // either is right, or some of both
    return done;
  }
  uint64_t write_some(uint64_t from, char letter) {
    uint64_t failed = 0;
    for (uint64_t i = 0; i < kBlocks; i += 2) {
      if (!write_block((from + i) % kBlocks, letter)) ++failed;
    }
    return failed;
  }
  int flush() {
    return ask(rig_->driver(0), {header(VIRTIO_BLK_T_FLUSH), writable(1)}).last_byte();
  }
  void expect_written() {
    for (const auto& [block, letter] : written_) {
      const RigUsed used = read_at(rig_->driver(0), block * kBlock / 512, kBlock);
      ASSERT_TRUE(as_text(used.bytes).substr(0, kBlock) == std::string(kBlock, letter)) << block;
    }
  }
  void expect_sound(bool may_leak) {
    if (GetParam().cluster_size == 0) return;
    auto report = check_qcow2(**make_sync_file(image_, path_), path_, Qcow2Repair::kNothing);
    ASSERT_TRUE(report) << report.error().what();
    EXPECT_EQ(report->errors, 0u) << report->messages.front();
    EXPECT_TRUE(may_leak || report->leaks == 0);
  }

  Fd root_;
  std::string path_;
  std::shared_ptr<const Fd> image_;
  std::map<uint64_t, char> written_;
  std::optional<Rig> rig_;
};

INSTANTIATE_TEST_SUITE_P(
    , BlockFullTest,
    testing::Values(Case{"Raw", RigPlace::kThread}, Case{"RawWorker", RigPlace::kWorker},
                    Case{"RawThreads", RigPlace::kThread, 0, ",async-executor=epoll"},
                    Case{"Qcow2", RigPlace::kThread, 65536},
                    Case{"Qcow2Worker", RigPlace::kWorker, 65536},
                    Case{"Qcow2Small", RigPlace::kThread, 512},
                    Case{"Qcow2Threads", RigPlace::kThread, 4096, ",async-executor=epoll"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(BlockFullTest, WorksAgainWhenThereIsRoom) {
  EXPECT_GT(write_some(0, 'a'), 0u);
  EXPECT_FALSE(written_.empty());
  (void)flush();
  expect_sound(true);
  expect_written();
  fill(0);
  // Room for some more, but not for all.
  EXPECT_TRUE(write_block(1, 'b'));
  EXPECT_TRUE(write_block(kBlocks - 1, 'b'));
  EXPECT_EQ(flush(), VIRTIO_BLK_S_OK);
  EXPECT_GT(write_some(1, 'c'), 0u);
  expect_written();
  const bool is_stable = flush() == VIRTIO_BLK_S_OK;
  rig_.reset();
  expect_sound(true);
  open();
  if (is_stable) expect_written();
}

TEST_P(BlockFullTest, ALimitOfTheFileSizeIsAnError) {
  if (GetParam().place == RigPlace::kWorker) GTEST_SKIP() << "the limit is of this process";
  fill(0);
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);  // as in every process of ours
  const rlimit limit = {.rlim_cur = 2 << 20, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const uint64_t failed = write_some(0, 'a');
  (void)flush();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_GT(failed, 0u);
  expect_sound(true);
  expect_written();
  EXPECT_TRUE(write_block(kBlocks - 1, 'b'));
  EXPECT_EQ(flush(), VIRTIO_BLK_S_OK);
  expect_written();
  expect_sound(true);
}

}  // namespace
}  // namespace crosvm
