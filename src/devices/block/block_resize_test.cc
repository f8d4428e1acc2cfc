// A disk whose size changes while its driver uses it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

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
using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kSector = 512;
constexpr uint64_t kBytes = 1 << 20;
constexpr uint64_t kLargest = 4 * kBytes;

/// What a device says to a command, when it does.
class Answer {
 public:
  void set(Result<std::string> said) {
    std::lock_guard lock(mutex_);
    EXPECT_FALSE(said_) << "two answers";
    said_ = std::move(said);
  }
  std::optional<Result<std::string>> get() {
    std::lock_guard lock(mutex_);
    return said_;
  }

 private:
  std::mutex mutex_;
  std::optional<Result<std::string>> said_;
};

std::shared_ptr<Answer> begin(Rig& rig, DeviceCommand command) {
  auto answer = std::make_shared<Answer>();
  rig.backend().command(std::move(command),
                        [answer](Result<std::string> said) { answer->set(std::move(said)); });
  return answer;
}

Result<std::string> await(Rig& rig, Answer& answer) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (std::chrono::steady_clock::now() < deadline) {
    rig.run_once();
    if (auto said = answer.get()) return *said;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return fail(Error(std::errc::timed_out, "no answer in a minute"));
}

Result<std::string> ask_device(Rig& rig, DeviceCommand command) {
  auto answer = begin(rig, std::move(command));
  return await(rig, *answer);
}
DeviceCommand resize_to(uint64_t bytes) {
  return {.name = "resize", .arguments = std::to_string(bytes), .fds = {}};
}
Result<std::string> resize(Rig& rig, uint64_t bytes) { return ask_device(rig, resize_to(bytes)); }

uint64_t capacity_of(const std::vector<std::byte>& space) {
  virtio_blk_config config = {};
  std::memcpy(&config, space.data(), std::min(sizeof(config), space.size()));
  return config.capacity;
}

struct Way {
  std::string_view name;
  RigPlace place;
  std::string_view keys;
  bool qcow2 = false;
  bool packed = false;
};

class BlockResizeTest : public ::testing::TestWithParam<Way> {
 protected:
  BlockResizeTest() : disk_(GetParam().qcow2 ? 0 : kBytes) {
    if (!GetParam().qcow2) return;
    auto image = make_sync_file(borrowed(disk_.fd()), disk_.path());
    EXPECT_TRUE(image);
    EXPECT_TRUE(create_qcow2(**image, {.size = kBytes}, disk_.path()));
  }
  Rig make(const std::string& more = "") const {
    return make_rig<BlockFactory>(disk_.text(std::string(GetParam().keys) + more),
                                  {.place = GetParam().place, .packed = GetParam().packed});
  }
  void expect_clean() const {
    if (!GetParam().qcow2) return;
    auto image = make_sync_file(borrowed(disk_.fd()), disk_.path());
    auto report = check_qcow2(**image, disk_.path(), Qcow2Repair::kNothing);
    ASSERT_TRUE(report) << report.error().what();
    EXPECT_EQ(report->errors + report->leaks, 0u);
  }

  TestDisk disk_;
};

INSTANTIATE_TEST_SUITE_P(
    , BlockResizeTest,
    testing::Values(Way{"Inline", RigPlace::kInline, ""}, Way{"Uring", RigPlace::kThread, ""},
                    Way{"Threads", RigPlace::kThread, ",async-executor=epoll"},
                    Way{"Workers", RigPlace::kThread, ",multiple-workers"},
                    Way{"Direct", RigPlace::kThread, ",direct"},
                    Way{"NotSparse", RigPlace::kThread, ",sparse=false"},
                    Way{"Packed", RigPlace::kThread, ",packed-queue", false, true},
                    Way{"Qcow2", RigPlace::kThread, "", true},
                    Way{"Qcow2Threads", RigPlace::kThread, ",async-executor=epoll", true},
                    Way{"Process", RigPlace::kWorker, ""},
                    Way{"WorkersProcess", RigPlace::kWorker, ",multiple-workers"},
                    Way{"ThreadsProcess", RigPlace::kWorker, ",async-executor=epoll,sparse=false"},
                    Way{"Qcow2Process", RigPlace::kWorker, "", true}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(BlockResizeTest, TheDriverHearsOfItAndFindsTheNewEnd) {
  {
    Rig rig = make();
    const std::string text(kSector, 'n');
    EXPECT_EQ(capacity_of(rig.info().config), kBytes / kSector);
    EXPECT_EQ(write_at(rig.driver(0), kBytes / kSector, text), VIRTIO_BLK_S_IOERR);
    EXPECT_EQ(write_at(rig.driver(1), 0, text), VIRTIO_BLK_S_OK);

    unsigned seen = rig.config_changes();
    Result<std::string> grown = resize(rig, kLargest);
    ASSERT_TRUE(grown) << grown.error().what();
    EXPECT_TRUE(rig.wait_config_change(seen));
    EXPECT_EQ(capacity_of(rig.config()), kLargest / kSector);
    for (uint16_t queue : {0, 1, 2}) {  // of which the last one was idle so far
      RigDriver& driver = rig.driver(queue);
      EXPECT_EQ(as_text(read_at(driver, kLargest / kSector - 1, kSector).bytes).substr(0, kSector),
                queue == 0 ? std::string(kSector, '\0') : text);
      EXPECT_EQ(write_at(driver, kLargest / kSector - 1, text), VIRTIO_BLK_S_OK);
      EXPECT_EQ(write_at(driver, kLargest / kSector, text), VIRTIO_BLK_S_IOERR);
    }

    seen = rig.config_changes();
    Result<std::string> shrunk = resize(rig, 8192);
    ASSERT_TRUE(shrunk) << shrunk.error().what();
    EXPECT_TRUE(rig.wait_config_change(seen));
    EXPECT_EQ(capacity_of(rig.config()), 16u);
    for (uint16_t queue : {0, 1, 2, 3}) {
      EXPECT_EQ(read_at(rig.driver(queue), 16, kSector).last_byte(), VIRTIO_BLK_S_IOERR);
      EXPECT_EQ(read_at(rig.driver(queue), 15, kSector).last_byte(), VIRTIO_BLK_S_OK);
    }
    EXPECT_EQ(as_text(read_at(rig.driver(0), 0, kSector).bytes).substr(0, kSector), text);

    ASSERT_TRUE(resize(rig, kBytes)) << "what was cut off is lost";
    EXPECT_EQ(as_text(read_at(rig.driver(0), 16, kSector).bytes).substr(0, kSector),
              std::string(kSector, '\0'));
    EXPECT_FALSE(rig.needs_reset());
  }
  expect_clean();
  EXPECT_EQ(GetParam().qcow2 ? kBytes : disk_.size(), kBytes);
  EXPECT_EQ(capacity_of(make().info().config), kBytes / kSector) << "and it stays so";
}

TEST_P(BlockResizeTest, UnderLoadNothingIsLostWithinBothSizes) {
  std::mt19937 random(7);
  {
    Rig rig = make();
    constexpr uint64_t kHalf = kBytes / 2 / kSector;  // in both sizes
    std::vector<uint32_t> written(kHalf);
    uint32_t version = 0;
    for (uint64_t round = 0; round < 12; ++round) {
      struct Sent {
        uint16_t queue;
        RigToken token;
        bool inside;
      };
      std::vector<Sent> all;
      auto send = [&](int count) {
        for (int i = 0; i < count; ++i) {
          const auto queue = static_cast<uint16_t>(random() % 4);
          const bool inside = random() % 2 == 0;
          // No two in flight for one sector: they would have no order.
          const uint64_t sector = inside ? (all.size() * 8 + random() % 8) % kHalf
                                         : kHalf + random() % (kLargest / kSector - kHalf);
          std::string text(kSector, '\0');
          if (inside) {
            written[sector] = ++version;
            std::memcpy(text.data(), &version, sizeof(version));
          }
          const RigToken token = rig.driver(queue).send(
              {header(VIRTIO_BLK_T_OUT, sector), readable(text), writable(1)});
          all.push_back({queue, token, inside});
        }
      };
      send(60);
      const uint64_t size = round % 2 == 0 ? kLargest : kBytes / 2;
      auto answer = begin(rig, resize_to(size));
      send(60);
      for (const Sent& sent : all) {
        const RigUsed used = rig.driver(sent.queue).wait_used(sent.token);
        ASSERT_TRUE(used.arrived) << round;
        ASSERT_TRUE(!sent.inside || used.last_byte() == VIRTIO_BLK_S_OK) << round;
      }
      const Result<std::string> resized = await(rig, *answer);
      ASSERT_TRUE(resized) << resized.error().what();
    }
    for (uint64_t sector = 0; sector < kHalf; ++sector) {
      uint32_t found = 0;
      const RigUsed used = read_at(rig.driver(0), sector, kSector);
      std::memcpy(&found, used.bytes.data(), sizeof(found));
      ASSERT_EQ(found, written[sector]) << sector;
    }
  }
  expect_clean();
}

TEST_P(BlockResizeTest, BeforeADriverComesAndAfterAReset) {
  Rig rig = must_have_rig(open_rig<BlockFactory>(
      disk_.text(std::string(GetParam().keys)),
      {.place = GetParam().place, .packed = GetParam().packed, .start = false}));
  Result<std::string> resized = resize(rig, 2 * kBytes);
  ASSERT_TRUE(resized) << resized.error().what();
  rig.start();
  EXPECT_EQ(write_at(rig.driver(3), 2 * kBytes / kSector - 1, std::string(kSector, 'x')),
            VIRTIO_BLK_S_OK);
  rig.reset();
  EXPECT_EQ(read_at(rig.driver(3), 2 * kBytes / kSector, kSector).last_byte(), VIRTIO_BLK_S_IOERR);
  ASSERT_TRUE(resize(rig, 3 * kBytes));
  EXPECT_EQ(read_at(rig.driver(5), 3 * kBytes / kSector - 1, kSector).last_byte(), VIRTIO_BLK_S_OK);
}

TEST_P(BlockResizeTest, WhatCannotBeIsRefusedByName) {
  struct {
    std::string arguments;
    const char* why;
  } cases[] = {{"0", "a disk of 0 bytes has no sector"},
               {"1000", "1000 bytes are no whole number of sectors; give a multiple of 512"},
               {"-512", "'-512' is no size in bytes"},
               {"", "'' is no size in bytes"},
               {"1M", "'1M' is no size in bytes"},
               {"18446744073709551616", "is no size in bytes"}};
  Rig rig = make();
  for (const auto& test : cases) {
    auto refused = ask_device(rig, {.name = "resize", .arguments = test.arguments, .fds = {}});
    ASSERT_FALSE(refused) << test.why;
    EXPECT_EQ(refused.error().code(), std::errc::invalid_argument);
    EXPECT_THAT(refused.error().what(), AllOf(HasSubstr(disk_.path()), HasSubstr(test.why)));
  }
  auto huge = resize(rig, UINT64_MAX - kSector + 1);
  ASSERT_FALSE(huge);
  EXPECT_THAT(huge.error().what(),
              AllOf(HasSubstr(disk_.path()), HasSubstr("18446744073709551104")));
  auto unknown = ask_device(rig, {.name = "polish", .arguments = "", .fds = {}});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), std::errc::not_supported);
  EXPECT_THAT(unknown.error().what(), HasSubstr("does not know 'polish'"));
  EXPECT_EQ(capacity_of(rig.config()), kBytes / kSector);
  EXPECT_EQ(write_at(rig.driver(0), 0, std::string(kSector, 'w')), VIRTIO_BLK_S_OK) << "it goes on";
  EXPECT_EQ(rig.config_changes(), 0u);

  Rig sealed = make(",ro,lock=false");
  auto refused = resize(sealed, kLargest);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), std::errc::read_only_file_system);
  EXPECT_THAT(refused.error().what(), AllOf(HasSubstr(disk_.path()), HasSubstr("without ro")));
}

class BlockResizeRestartTest : public ::testing::TestWithParam<const char*> {};

INSTANTIATE_TEST_SUITE_P(, BlockResizeRestartTest, testing::Values("", ",multiple-workers"),
                         [](const auto& info) { return info.param[0] ? "Workers" : "One"; });

TEST_P(BlockResizeRestartTest, TheNextProcessHasTheNewSizeAndTakesCommands) {
  TestDisk disk(kBytes);
  auto host = WorkerHost::create({.restart_devices = {"block"}, .restarts_a_minute = 100});
  ASSERT_TRUE(host) << host.error().what();
  auto backend = (*host)->run("block0", device_type<BlockFactory>(), disk.text(GetParam()));
  ASSERT_TRUE(backend) << backend.error().what();
  (*host)->go();
  Rig rig = Rig::attach(std::move(*backend));
  ASSERT_TRUE(resize(rig, 2 * kBytes));
  pid_t former = (*host)->wait_process("block0", 0);
  ::kill(former, SIGKILL);
  EXPECT_EQ(write_at(rig.driver(0), 2 * kBytes / kSector - 1, std::string(kSector, 'x')),
            VIRTIO_BLK_S_OK);
  EXPECT_EQ(capacity_of(rig.config()), 2 * kBytes / kSector);

  // One that dies with the command in its hands, while others wait.
  former = (*host)->wait_process("block0", former);
  ::kill(former, SIGSTOP);
  auto given = begin(rig, resize_to(3 * kBytes));
  auto waiting = begin(rig, resize_to(kBytes));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(given->get());
  ::kill(former, SIGKILL);
  auto lost = await(rig, *given);
  ASSERT_FALSE(lost);
  EXPECT_EQ(lost.error().code(), std::errc::not_connected);
  EXPECT_THAT(lost.error().what(), AllOf(HasSubstr("block0"), HasSubstr("ask again")));
  auto done = await(rig, *waiting);
  ASSERT_TRUE(done) << done.error().what();
  EXPECT_EQ(disk.size(), kBytes);
  EXPECT_EQ(read_at(rig.driver(0), kBytes / kSector, kSector).last_byte(), VIRTIO_BLK_S_IOERR);
}

TEST(BlockResizeWorkerTest, ADeviceWithoutAProcessSaysSo) {
  TestDisk disk(kBytes);
  auto host = WorkerHost::create();
  ASSERT_TRUE(host) << host.error().what();
  auto backend = (*host)->run("block0", device_type<BlockFactory>(), disk.text());
  ASSERT_TRUE(backend) << backend.error().what();
  (*host)->go();
  Rig rig = Rig::attach(std::move(*backend));
  ::kill((*host)->wait_process("block0", 0), SIGKILL);
  ASSERT_TRUE((*host)->wait_death());
  auto refused = resize(rig, 2 * kBytes);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), std::errc::not_connected);
  EXPECT_THAT(refused.error().what(), HasSubstr("block0"));
}

}  // namespace
}  // namespace crosvm
