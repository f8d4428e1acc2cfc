#include <gtest/gtest.h>

#include <thread>

#include "devices/block/block_device.h"
#include "devices/block/block_test_disk.h"
#include "virtio/rig/sleeping_load.h"

namespace crosvm {
namespace {

using namespace block_test;

constexpr size_t kBlock = 4096;
constexpr uint64_t kBlocks = 1024;
constexpr uint16_t kQueues = 2;
constexpr uint64_t kRequests = 10'000;  // of each queue

struct Way {
  std::string_view name;
  std::string_view text;  // added to the configuration
  RigOptions options = {};
  size_t depth = 16;
  SleepingLoad::Kernel kernel = SleepingLoad::Kernel::k6_1;
};

/// No wake-up is lost between a disk and drivers that sleep until they are woken: of two queues,
/// with the executor in threads of its own or of the kernel.
class BlockWakeupTest : public ::testing::TestWithParam<Way> {
 protected:
  /// Half of them read.
  static std::vector<RigLoad::Slot> make_slots(Rig& rig) {
    std::vector<RigLoad::Slot> slots(GetParam().depth);
    for (size_t i = 0; i < slots.size(); ++i) {
      slots[i].buffers = {{rig.memory().allocate(sizeof(Header)), sizeof(Header), false},
                          {rig.memory().allocate(kBlock, kBlock), kBlock, i % 2 == 0},
                          {rig.memory().allocate(1), 1, true}};
      if (GetParam().options.indirect) slots[i].table = rig.memory().allocate(3 * 16);
    }
    return slots;
  }
  static SleepingLoad::Report run(Rig& rig, uint16_t queue, std::vector<RigLoad::Slot> slots) {
    const GuestMemory& ram = rig.memory().guest();
    uint64_t next = queue;
    SleepingLoad load(rig.driver(queue), slots);
    return load.run(
        {.requests = kRequests,
         .kernel = GetParam().kernel,
         .prepare =
             [&](size_t slot) {
               const auto& buffers = slots[slot].buffers;
               const uint32_t type = buffers[1].writable ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
               next = (next * 5 + 1) % kBlocks;  // comes past every block
               CHECK(ram.write(buffers[0].address, Header{type, 0, next * (kBlock / 512)}));
               CHECK(ram.write(buffers[2].address, uint8_t{0xff}));
             },
         .judge =
             [&](size_t slot, uint32_t) {
               return ram.read<uint8_t>(slots[slot].buffers[2].address) == VIRTIO_BLK_S_OK;
             }});
  }

  TestDisk disk_{kBlocks * kBlock};
};

constexpr std::string_view kPacked = ",packed-queue";
INSTANTIATE_TEST_SUITE_P(
    , BlockWakeupTest,
    testing::Values(
        Way{"Split", ""}, Way{"Packed", kPacked, {.packed = true}},
        Way{"Epoll", ",async-executor=epoll"},
        Way{"PackedEpoll", ",packed-queue,async-executor=epoll", {.packed = true}},
        Way{"PackedWorkers", ",packed-queue,multiple-workers", {.packed = true}},
        Way{"Process", "", {.place = RigPlace::kWorker}},
        Way{"ProcessPackedEpoll",
            ",packed-queue,async-executor=epoll",
            {.place = RigPlace::kWorker, .packed = true}},
        Way{"Full", "", {.max_queue_size = 4}, 4, SleepingLoad::Kernel::k6_4},
        Way{"PackedFull", kPacked, {.packed = true, .max_queue_size = 5}, 5},
        Way{"PackedChains", kPacked, {.packed = true, .indirect = false, .max_queue_size = 25}, 8},
        Way{"PackedLater", kPacked, {.packed = true}, 4, SleepingLoad::Kernel::k6_4},
        Way{"PackedWithoutEvents", kPacked, {.packed = true, .event_idx = false}, 4}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_P(BlockWakeupTest, EveryRequestComesBack) {
  Rig rig = make_rig<BlockFactory>(disk_.text(std::string(GetParam().text)), GetParam().options);
  std::vector<SleepingLoad::Report> reports(kQueues);
  std::vector<std::thread> threads;
  for (uint16_t queue = 0; queue < kQueues; ++queue) {
    threads.emplace_back(
        [&, queue, slots = make_slots(rig)] { reports[queue] = run(rig, queue, slots); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& report : reports) {
    EXPECT_EQ(report.stall, "");
    EXPECT_EQ(report.completed, kRequests);
    EXPECT_EQ(report.failed, 0U);
    EXPECT_GT(report.kicks, 0U);
    EXPECT_GT(report.interrupts, 0U);
  }
}

}  // namespace
}  // namespace crosvm
