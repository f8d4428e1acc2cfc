// Block devices of the host as disks: a loop device, where this machine lets us have one.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include <cstring>
#include <future>
#include <string>

#include "base/format.h"
#include "devices/block/block_device.h"
#include "devices/block/block_test_disk.h"

namespace crosvm {
namespace {

using namespace block_test;
using testing::HasSubstr;

constexpr uint64_t kBytes = 8 << 20;
constexpr uint64_t kSector = 512;

class BlockNodeTest : public ::testing::Test {
 protected:
  /// A loop device on `file_`, gone when nobody has it open any more; what stands in the way
  /// otherwise.
  std::string attach(uint32_t block_size) {
    Fd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    if (!control) return format_text("/dev/loop-control: {}", std::strerror(errno));
    for (int tries = 0; tries < 10; ++tries) {  // others may take the free one before us
      const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
      if (number < 0) return format_text("no free loop device: {}", std::strerror(errno));
      path_ = format_text("/dev/loop{}", number);
      node_ = Fd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
      if (!node_) return format_text("{}: {}", path_, std::strerror(errno));
      loop_config config{};
      config.fd = static_cast<uint32_t>(file_.fd().get());
      config.block_size = block_size;
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      if (::ioctl(node_.get(), LOOP_CONFIGURE, &config) == 0) return "";
      if (errno != EBUSY) return format_text("attaching {}: {}", path_, std::strerror(errno));
    }
    return "no loop device stayed free";
  }
  static virtio_blk_config config_of(const Rig& rig) {
    virtio_blk_config config = {};
    std::memcpy(&config, rig.info().config.data(), sizeof(config));
    return config;
  }

  TestDisk file_{kBytes};
  Fd node_;
  std::string path_;
};

#define ATTACH_OR_SKIP(block_size) \
  if (std::string why = attach(block_size); !why.empty()) GTEST_SKIP() << why

TEST_F(BlockNodeTest, HasItsSizeAndTopology) {
  ATTACH_OR_SKIP(4096);
  Rig rig = make_rig<BlockFactory>("path=" + path_);
  virtio_blk_config config = config_of(rig);
  EXPECT_EQ(config.capacity, kBytes / kSector);
  EXPECT_EQ(config.blk_size, 512U);
  EXPECT_EQ(config.physical_block_exp, 3) << "4096 bytes";
  EXPECT_EQ(config.min_io_size, 8);
  rig = make_rig<BlockFactory>("path=" + path_ + ",block-size=4096,lock=false");
  EXPECT_EQ(config_of(rig).physical_block_exp, 0);
}

TEST_F(BlockNodeTest, ServesReadsWritesAndFlushes) {
  ATTACH_OR_SKIP(512);
  for (const char* more : {"", ",async-executor=epoll", ",direct", ",multiple-workers"}) {
    Rig rig = make_rig<BlockFactory>("path=" + path_ + more);
    const std::string text(3 * kSector, more[0] == '\0' ? 'a' : more[1]);
    EXPECT_EQ(write_at(rig.driver(0), 7, text), VIRTIO_BLK_S_OK) << more;
    EXPECT_EQ(as_text(read_at(rig.driver(1), 7, text.size()).bytes).substr(0, text.size()), text);
    EXPECT_EQ(ask(rig.driver(0), {header(VIRTIO_BLK_T_FLUSH), writable(1)}).last_byte(), 0);
    EXPECT_EQ(file_.read(7 * kSector, text.size()), text);
  }
}

TEST_F(BlockNodeTest, DirectWritesOfPartsOfABlockKeepTheRest) {
  ATTACH_OR_SKIP(4096);
  file_.write(0, std::string(8192, 'k'));
  Rig rig = make_rig<BlockFactory>("path=" + path_ + ",direct");
  EXPECT_EQ(write_at(rig.driver(0), 3, std::string(kSector, 'n')), VIRTIO_BLK_S_OK);
  EXPECT_EQ(ask(rig.driver(0), {header(VIRTIO_BLK_T_FLUSH), writable(1)}).last_byte(), 0);
  EXPECT_EQ(as_text(read_at(rig.driver(0), 0, 8192).bytes).substr(0, 8192),
            std::string(3 * kSector, 'k') + std::string(kSector, 'n') +
                std::string(8192 - 4 * kSector, 'k'));
}

/// By BLKDISCARD, on a thread: an io_uring of ours may not do it.
TEST_F(BlockNodeTest, DiscardsAndWriteZeroesReachTheDevice) {
  ATTACH_OR_SKIP(512);
  for (const char* more : {"", ",async-executor=epoll"}) {
    Rig rig = make_rig<BlockFactory>("path=" + path_ + more);
    ASSERT_EQ(write_at(rig.driver(0), 0, std::string(1 << 20, 'd')), VIRTIO_BLK_S_OK);
    ASSERT_EQ(ask(rig.driver(0), {header(VIRTIO_BLK_T_FLUSH), writable(1)}).last_byte(), 0);
    const uint64_t before = file_.host_sectors();
    EXPECT_EQ(
        ask(rig.driver(0), {header(VIRTIO_BLK_T_DISCARD), readable(Range{0, 1024, 0}), writable(1)})
            .last_byte(),
        VIRTIO_BLK_S_OK);
    EXPECT_LE(file_.host_sectors() + 1024, before) << more;
    EXPECT_EQ(as_text(read_at(rig.driver(0), 0, kSector).bytes)[0], '\0');
    for (uint32_t flags : {0U, 1U}) {
      EXPECT_EQ(ask(rig.driver(0), {header(VIRTIO_BLK_T_WRITE_ZEROES),
                                    readable(Range{1024 + flags * 8, 8, flags}), writable(1)})
                    .last_byte(),
                VIRTIO_BLK_S_OK);
    }
    EXPECT_EQ(
        as_text(read_at(rig.driver(0), 1023, 18 * kSector).bytes).substr(0, 18 * kSector),
        std::string(kSector, '\0') + std::string(16 * kSector, '\0') + std::string(kSector, 'd'));
  }
}

/// Its size is the host's: the driver hears of it when it is asked for.
TEST_F(BlockNodeTest, FollowsTheSizeOfTheDevice) {
  ATTACH_OR_SKIP(512);
  Rig rig = make_rig<BlockFactory>("path=" + path_);
  auto resize = [&rig](uint64_t bytes) {
    std::promise<Result<std::string>> answer;
    rig.backend().command(
        {.name = "resize", .arguments = std::to_string(bytes), .fds = {}},
        [&answer](Result<std::string> said) { answer.set_value(std::move(said)); });
    return answer.get_future().get();
  };
  auto refused = resize(2 * kBytes);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), std::errc::not_supported);
  EXPECT_THAT(refused.error().what(), HasSubstr("it is a block device of 8388608 bytes; change "));
  file_.resize(2 * kBytes);
  ASSERT_EQ(::ioctl(node_.get(), LOOP_SET_CAPACITY, 0), 0) << std::strerror(errno);
  auto resized = resize(2 * kBytes);
  ASSERT_TRUE(resized) << resized.error().what();
  EXPECT_TRUE(rig.wait_config_change(0));
  virtio_blk_config config = {};
  std::memcpy(&config, rig.config().data(), sizeof(config));
  EXPECT_EQ(config.capacity, 2 * kBytes / kSector);
  EXPECT_EQ(write_at(rig.driver(0), 2 * kBytes / kSector - 1, std::string(kSector, 'n')),
            VIRTIO_BLK_S_OK);
}

TEST_F(BlockNodeTest, IsLockedAsAFileIs) {
  ATTACH_OR_SKIP(512);
  auto writer = device_type<BlockFactory>().open("path=" + path_);
  ASSERT_TRUE(writer) << writer.error().what();
  auto second = device_type<BlockFactory>().open("path=" + path_ + ",ro");
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().what(), HasSubstr(path_ + " is being written by another process"));
}

}  // namespace
}  // namespace crosvm
