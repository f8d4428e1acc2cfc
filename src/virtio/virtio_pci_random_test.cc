#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/pci_regs.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "virtio/virtio_pci_rig.h"

namespace crosvm {
namespace {

using test::kRunning;
using test::VirtioPciRig;

/// A driver that does anything at all, and a backend that is as lively.
class Chaos {
 public:
  Chaos(VirtioPciRig& rig, uint32_t seed) : rig_(rig), random_(seed) {}

  void step() {
    switch (pick(16)) {
      case 0:
        return rig_.backend().listener().config_changed(some_bytes(pick(12)));
      case 1:
        if (pick(8) == 0) rig_.backend().listener().needs_reset();
        return;
      case 2:
        return rig_.backend().hold(pick(2) == 0);
      case 3:
        rig_.backend().complete();
        return;
      case 4:
        return move_bar();
      case 5:
        return rig_.vm().fail_with(pick(4) == 0 ? ENOSPC : 0);
      case 6:
      case 7:
        return configuration();
      case 8:
        rig_.take_vectors();
        return;
      case 9:
        if (pick(4) == 0) rig_.start_driver();
        return;
      case 10:
        rig_.select(static_cast<uint16_t>(pick(3)));
        return rig_.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
      default:
        return access();
    }
  }
  /// An access to a register of any size, mostly one that exists.
  void access() {
    static constexpr uint64_t kInteresting[] = {
        0,  4,  8,      12,     16,     18,     20,     20,     20,     21,     22,
        24, 26, 28,     28,     30,     32,     36,     40,     44,     48,     52,
        56, 58, 0x1000, 0x2000, 0x2004, 0x3000, 0x3004, 0x6000, 0x600c, 0x6010, 0x7000};
    static constexpr size_t kSizes[] = {4, 4, 8, 4, 2, 1, 2, 1, 2, 8, 3, 5};
    const uint64_t offset =
        pick(5) == 0 ? pick(0x8000) : kInteresting[pick(std::size(kInteresting))];
    const size_t size = offset == 20 ? 1 : kSizes[pick(std::size(kSizes))];
    std::vector<std::byte> data = some_bytes(size);
    if (pick(3) == 0) return rig_.device()->read_bar(0, offset, data);
    rig_.device()->write_bar(pick(20) == 0 ? 2 : 0, offset, data);
  }

 private:
  uint32_t pick(uint32_t below) {
    return std::uniform_int_distribution<uint32_t>(0, below - 1)(random_);
  }
  /// Small numbers, as registers want them, or anything.
  std::vector<std::byte> some_bytes(size_t size) {
    std::vector<std::byte> bytes(size);
    const bool small = pick(4) != 0;
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(small ? 0 : pick(256));
    if (small && size > 0) bytes[0] = static_cast<std::byte>(pick(2) == 0 ? pick(4) : pick(16));
    return bytes;
  }
  void move_bar() {
    std::optional<uint64_t> to;
    if (pick(3) != 0) to = 0xd0000000 + 0x8000 * pick(8);
    rig_.device()->bar_mapped(pick(4) == 0 ? 2 : 0, to);
  }
  void configuration() {
    const size_t offset = pick(4) == 0 ? 4 * pick(64) : 0x84 + 4 * pick(10);
    if (pick(3) == 0) {
      rig_.config_read<uint32_t>(offset);
      return;
    }
    static constexpr uint32_t kValues[] = {0, 1, 2, 4, 20, 28, 0x1000, 0x3000, 0x80000000};
    rig_.config_write<uint32_t>(offset, kValues[pick(std::size(kValues))]);
  }

  VirtioPciRig& rig_;
  std::mt19937 random_;
};

/// Whatever was before: a driver that knows its trade gets the device to run.
void expect_a_good_driver_succeeds(VirtioPciRig& rig) {
  rig.backend().hold(false);
  rig.backend().complete();
  rig.vm().fail_with(0);
  rig.device()->bar_mapped(0, std::nullopt);
  rig.set_status(0);
  ASSERT_EQ(rig.status(), 0);
  ASSERT_THAT(rig.vm().ioevents(), testing::IsEmpty());
  rig.backend().take_calls();
  rig.device()->bar_mapped(0, 0xd0000000);
  rig.enable_msix();
  rig.take_vectors();
  rig.set_config_vector(0);
  rig.start_driver();
  rig.set_queue_vector(0, 1);
  rig.set_queue_vector(1, 2);
  ASSERT_EQ(rig.status(), kRunning);
  ASSERT_EQ(rig.vm().ioevents().size(), 2U);
  for (uint16_t queue : {0, 1}) {
    ASSERT_TRUE(rig.backend().queue(queue).enabled);
    EXPECT_EQ(rig.backend().queue(queue).size, queue == 0 ? 128 : 64);
    EXPECT_EQ(rig.backend().queue(queue).addresses.driver_area.value, 0x10000U * queue + 0x2000);
    drain_eventfd(rig.backend().queue(queue).kick);
    rig.write<uint16_t>(0x3000 + 4ULL * queue, queue);
    EXPECT_EQ(drain_eventfd(rig.backend().queue(queue).kick), 1U);
    signal_eventfd(rig.backend().queue(queue).call);
    EXPECT_THAT(rig.take_vectors(), testing::ElementsAre(queue + 1U));
  }
}

TEST(VirtioPciRandom, AfterAnySequenceAResetMakesAllWell) {
  constexpr int kSequences = 100;
  constexpr int kSteps = 500;
  std::map<std::string, int> calls;
  for (uint32_t seed = 0; seed < kSequences; ++seed) {
    SCOPED_TRACE(seed);
    VirtioPciRig rig;
    Chaos chaos(rig, seed);
    for (int i = 0; i < kSteps; ++i) chaos.step();
    for (const std::string& call : rig.backend().take_calls()) ++calls[call.substr(0, 5)];
    expect_a_good_driver_succeeds(rig);
    if (HasFatalFailure()) return;
  }
  // All kinds of life happened.
  for (const char* call : {"featu", "num 0", "num 1", "reset", "stop ", "confi"}) {
    EXPECT_GT(calls[call], kSequences / 2) << call;
  }
}

/// vCPUs, the control thread and the device at once: no lock is missing, none is taken twice.
TEST(VirtioPciRandom, ThreadsDoAsTheyLike) {
  constexpr int kSteps = 4000;
  VirtioPciRig rig;
  std::atomic<bool> stop = false;
  std::thread device([&] {
    for (uint8_t i = 0; !stop; ++i) {
      rig.backend().hold(i % 2 == 0);
      rig.backend().listener().config_changed({std::byte{i}});
      if (i % 16 == 0) rig.backend().listener().needs_reset();
      rig.backend().complete();
    }
  });
  std::thread pci([&] {  // PciRoot's: configuration and BARs
    for (uint32_t i = 0; !stop; ++i) {
      rig.device()->bar_mapped(0, 0xd0000000 + 0x8000 * (i % 4));
      rig.config_write<uint8_t>(0x88, 0);
      rig.config_write<uint32_t>(0x8c, i % 64);
      rig.config_write<uint32_t>(0x90, 1);
      rig.config_read<uint32_t>(0x94);
      rig.config_write<uint16_t>(0x9a, i % 2 == 0 ? 0x8000 : 0);
    }
  });
  std::mutex bar_lock;  // PciRoot's, of this function
  auto vcpu = [&](uint32_t seed) {
    Chaos chaos(rig, seed);
    for (int i = 0; i < kSteps; ++i) {
      std::lock_guard serialised(bar_lock);
      if (i % 50 == 0) rig.start_driver();
      chaos.access();
    }
  };
  std::thread other(vcpu, 1);
  vcpu(2);
  other.join();
  stop = true;
  device.join();
  pci.join();
  expect_a_good_driver_succeeds(rig);
}

}  // namespace
}  // namespace crosvm
