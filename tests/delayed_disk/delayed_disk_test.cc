// A disk whose process is killed while its writes are delayed in the kernel: the process that takes
// its place must not begin before they have landed, or an old write could land on a new one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <optional>

#include "base/format.h"
#include "delayed_device.h"
#include "devices/block/block_device.h"
#include "devices/block/block_test_disk.h"
#include "jail/rig/worker_host.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

using namespace block_test;
using testing::IsEmpty;

constexpr uint64_t kBytes = 8 << 20;
constexpr size_t kBlock = 4096;
constexpr uint64_t kBlocks = 16;
constexpr int kRounds = 6;
constexpr std::chrono::milliseconds kDelay{700};
constexpr std::array<std::string_view, 3> kNames = {"Uring", "Threads", "Workers"};

class DelayedDiskTest : public ::testing::TestWithParam<std::string_view> {
 protected:
  void SetUp() override {
    auto device = DelayedDevice::create(file_.fd(), kBytes, kDelay);
    if (!device) GTEST_SKIP() << device.error().what();
    device_.emplace(std::move(*device));
    auto host = WorkerHost::create({.restart_devices = {"block"}, .restarts_a_minute = 1000});
    ASSERT_TRUE(host) << host.error().what();
    host_ = std::move(*host);
    auto backend = host_->run("block0", device_type<BlockFactory>(),
                              format_text("path={},direct{}", device_->path(), GetParam()));
    ASSERT_TRUE(backend) << backend.error().what();
    host_->go();
    rig_.emplace(Rig::attach(std::move(*backend)));
  }
  void TearDown() override {
    rig_.reset();
    host_.reset();
    device_.reset();
  }
  static std::string content(uint64_t block, int round) {
    std::string text = format_text("block {} round {}", block, round);
    text.resize(kBlock, static_cast<char>('a' + round));
    return text;
  }
  RigToken send_write(uint64_t block, int round) {
    return rig_->driver(0).send({header(VIRTIO_BLK_T_OUT, block * (kBlock / 512)),
                                 readable(content(block, round)), writable(1)});
  }
  /// On the file, below everything that delays.
  std::string landed(uint64_t block) const { return file_.read(block * kBlock, kBlock); }

  TestDisk file_{kBytes};
  std::optional<DelayedDevice> device_;
  std::unique_ptr<WorkerHost> host_;
  std::optional<Rig> rig_;
};

INSTANTIATE_TEST_SUITE_P(, DelayedDiskTest,
                         testing::Values("", ",async-executor=epoll", ",multiple-workers"),
                         [](const auto& way) { return std::string(kNames[way.index]); });

TEST_P(DelayedDiskTest, TheNextProcessBeginsWhenTheWritesOfTheLastHaveLanded) {
  pid_t former = 0;
  for (int round = 0; round < kRounds; ++round) {
    const pid_t present = host_->wait_process("block0", former);
    ASSERT_GT(present, 0);
    std::vector<RigToken> tokens;
    for (uint64_t block = 0; block < kBlocks; ++block) tokens.push_back(send_write(block, round));
    // The last of them is in the kernel's hands by then, and none has landed.
    EXPECT_FALSE(rig_->driver(0).wait_used(tokens.back(), kDelay / 4).arrived);
    EXPECT_NE(landed(kBlocks - 1), content(kBlocks - 1, round));
    ASSERT_EQ(::kill(present, SIGKILL), 0);
    const pid_t next = host_->wait_process("block0", present);
    ASSERT_GT(next, 0);
    // Its own writes of these blocks would still be delayed: what is there, the last one wrote.
    unsigned there = 0;
    for (uint64_t block = 0; block < kBlocks; ++block)
      there += landed(block) == content(block, round);
    EXPECT_GT(there, 0u) << "no write of the killed process was under way: nothing was tested";
    for (const RigToken& token : tokens) {
      EXPECT_EQ(rig_->driver(0).wait_used(token).last_byte(), VIRTIO_BLK_S_OK);
    }
    for (uint64_t block = 0; block < kBlocks; ++block) {
      EXPECT_EQ(landed(block), content(block, round)) << block;
    }
    former = present;
  }
  EXPECT_THAT(host_->deaths(), IsEmpty());
}

}  // namespace
}  // namespace crosvm
