#include "pci/pci_interrupts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "hypervisor/fake_vm.h"

namespace crosvm {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr uint32_t kIntxGsi = 10;
constexpr uint32_t kFirstGsi = 24;
constexpr uint64_t kAddress = 0xfee00000;

/// A function with four vectors and three events: 0 and 1 like queues, 2 like a change of the
/// configuration.
class PciInterruptsTest : public testing::Test {
 protected:
  explicit PciInterruptsTest(uint32_t last_gsi = 1023)
      : routes_(vm_, {}, kFirstGsi, last_gsi), interrupts_(make(kIntxGsi)) {}

  std::unique_ptr<PciInterrupts> make(std::optional<uint32_t> gsi) {
    auto made = PciInterrupts::create({.vm = vm_, .routes = routes_, .relay = *relay_},
                                      {.vectors = 4, .causes = {1, 1, 2}, .intx_gsi = gsi});
    EXPECT_TRUE(made.has_value());
    return *std::move(made);
  }

  /// Waits until the relay has seen all that was signalled before.
  void flush() {
    Fd mark = *make_eventfd();
    std::atomic<bool> seen = false;
    auto id = relay_->watch(mark, [&] {
      drain_eventfd(mark);
      seen = true;
    });
    signal_eventfd(mark);
    while (!seen) std::this_thread::yield();
    relay_->forget(id);
  }
  void signal(size_t event) {
    signal_eventfd(interrupts_->event(event));
    flush();
  }

  template <class T>
  void write(uint64_t offset, T value) {
    interrupts_->write_table(offset, std::as_bytes(std::span(&value, 1)));
  }
  template <class T>
  T read(uint64_t offset) {
    T value = static_cast<T>(~T{0});
    interrupts_->read_table(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  uint64_t pending() {
    uint64_t bits = ~0ULL;
    interrupts_->read_pending(0, std::as_writable_bytes(std::span(&bits, 1)));
    return bits;
  }
  void set_message(uint16_t vector, uint32_t data) {
    write<uint64_t>(16U * vector, kAddress);
    write<uint32_t>(16U * vector + 8, data);
  }
  void mask(uint16_t vector, bool masked) { write<uint32_t>(16U * vector + 12, masked ? 1 : 0); }
  /// Event 0 on vector 0, event 1 on vector 1, with messages 0x40 and 0x41; all unmasked.
  void use_msix() {
    interrupts_->set_control(true, false);
    for (uint16_t vector : {0, 1}) {
      set_message(vector, 0x40U + vector);
      interrupts_->set_vector(vector, vector);
      mask(vector, false);
    }
  }
  /// The data of the messages that came since the last call.
  std::vector<uint32_t> sent() {
    std::vector<uint32_t> data;
    for (const MsiMessage& message : vm_.take_sent()) data.push_back(message.data);
    return data;
  }
  int raised() { return vm_.take_raised(kIntxGsi); }
  void end_of_interrupt() {
    vm_.end_of_interrupt(kIntxGsi);
    flush();
  }

  test::FakeVm vm_;
  MsiRoutes routes_;
  std::unique_ptr<InterruptRelay> relay_ = *InterruptRelay::create();
  std::unique_ptr<PciInterrupts> interrupts_;
};

TEST_F(PciInterruptsTest, AnUnmaskedVectorGoesThroughAnIrqfd) {
  use_msix();
  EXPECT_THAT(vm_.irqfds(), SizeIs(2));
  signal(0);
  EXPECT_THAT(sent(), ElementsAre(0x40U));
  signal(1);
  signal(0);
  EXPECT_THAT(sent(), testing::UnorderedElementsAre(0x40U, 0x41U));
}

TEST_F(PciInterruptsTest, NothingIsTakenFromTheVmBeforeItIsNeeded) {
  EXPECT_THAT(vm_.irqfds(), IsEmpty());
  EXPECT_EQ(vm_.pushes(), 0);
  interrupts_->set_control(true, false);
  mask(3, false);
  EXPECT_EQ(vm_.pushes(), 0) << "no event uses the vector";
}

TEST_F(PciInterruptsTest, AMaskedVectorPendsAndIsDeliveredWhenUnmasked) {
  use_msix();
  mask(1, true);
  signal(1);
  signal(1);
  EXPECT_THAT(sent(), IsEmpty());
  EXPECT_EQ(pending(), 2U);
  signal(0);
  EXPECT_THAT(sent(), ElementsAre(0x40U)) << "the other is on its way as before";
  mask(1, false);
  EXPECT_THAT(sent(), ElementsAre(0x41U)) << "once, however often it was signalled";
  EXPECT_EQ(pending(), 0U);
  signal(1);
  EXPECT_THAT(sent(), ElementsAre(0x41U));
}

TEST_F(PciInterruptsTest, TheFunctionMaskHoldsAllBack) {
  use_msix();
  interrupts_->set_control(true, true);
  signal(0);
  signal(1);
  EXPECT_THAT(sent(), IsEmpty());
  EXPECT_EQ(pending(), 3U);
  mask(1, true);
  interrupts_->set_control(true, false);
  EXPECT_THAT(sent(), ElementsAre(0x40U)) << "1 is masked by itself";
  EXPECT_EQ(pending(), 2U);
  mask(1, false);
  EXPECT_THAT(sent(), ElementsAre(0x41U));
}

TEST_F(PciInterruptsTest, EventsMayShareAVector) {
  use_msix();
  interrupts_->set_vector(1, 0);
  interrupts_->set_vector(2, 0);
  for (size_t event : {0, 1, 2}) {
    signal(event);
    EXPECT_THAT(sent(), ElementsAre(0x40U)) << event;
  }
  mask(0, true);
  for (size_t event : {0, 1, 2}) signal(event);
  EXPECT_EQ(pending(), 1U);
  mask(0, false);
  EXPECT_THAT(sent(), ElementsAre(0x40U));
}

TEST_F(PciInterruptsTest, AnEventWithoutAVectorIsDropped) {
  use_msix();
  interrupts_->set_vector(0, PciInterrupts::kNoVector);
  interrupts_->set_vector(1, 4);
  EXPECT_EQ(interrupts_->vector(1), PciInterrupts::kNoVector) << "one past the table";
  signal(0);
  signal(1);
  signal(2);
  EXPECT_EQ(interrupts_->take_causes(), 0);
  interrupts_->set_vector(0, 0);
  interrupts_->set_vector(1, 1);
  EXPECT_EQ(interrupts_->vector(1), 1);
  EXPECT_THAT(sent(), IsEmpty());
  EXPECT_EQ(pending(), 0U);
}

TEST_F(PciInterruptsTest, ANewMessageIsTakenAtTheUnmasking) {
  use_msix();
  mask(0, true);
  int before = vm_.pushes();
  set_message(0, 0x77);
  write<uint32_t>(4, 0x12);
  EXPECT_EQ(vm_.pushes(), before);
  mask(0, false);
  EXPECT_EQ(vm_.pushes(), before + 1);
  signal(0);
  auto messages = vm_.take_sent();
  ASSERT_THAT(messages, SizeIs(1));
  EXPECT_EQ(messages[0].data, 0x77U);
  EXPECT_EQ(messages[0].address, kAddress | 0x12ULL << 32);
  EXPECT_THAT(vm_.irqfds(), SizeIs(2));
}

TEST_F(PciInterruptsTest, TheTableTakesAlignedAccessesOfFourOrEightBytes) {
  set_message(2, 0x33);
  EXPECT_EQ(read<uint64_t>(0x20), kAddress);
  EXPECT_EQ(read<uint32_t>(0x28), 0x33U);
  EXPECT_EQ(read<uint16_t>(0x28), 0U);
  EXPECT_EQ(read<uint8_t>(0x28), 0U);
  EXPECT_EQ(read<uint64_t>(0x24), 0U);
  EXPECT_EQ(read<uint32_t>(0x40), 0U) << "behind the table";
  write<uint8_t>(0x28, 0xff);
  write<uint16_t>(0x28, 0xffff);
  write<uint64_t>(0x24, ~0ULL);
  EXPECT_EQ(read<uint32_t>(0x28), 0x33U);
}

TEST_F(PciInterruptsTest, WithoutMsixTheLineIsRaisedOnceUntilTheCausesAreRead) {
  signal(0);
  EXPECT_EQ(raised(), 1);
  signal(1);
  signal(2);
  EXPECT_EQ(raised(), 0);
  EXPECT_EQ(interrupts_->take_causes(), 3);
  EXPECT_EQ(interrupts_->take_causes(), 0);
  signal(2);
  EXPECT_EQ(raised(), 1);
  EXPECT_EQ(interrupts_->take_causes(), 2);
}

TEST_F(PciInterruptsTest, TheLineRisesAgainAfterEachEoiWhileThereAreCauses) {
  signal(0);
  EXPECT_EQ(raised(), 1);
  end_of_interrupt();
  EXPECT_EQ(raised(), 1);
  EXPECT_EQ(interrupts_->take_causes(), 1);
  end_of_interrupt();
  EXPECT_EQ(raised(), 0);
}

TEST_F(PciInterruptsTest, FunctionsOnOneLineAreIndependent) {
  auto other = make(kIntxGsi);
  signal(0);
  signal_eventfd(other->event(0));
  flush();
  EXPECT_EQ(raised(), 2);
  EXPECT_EQ(interrupts_->take_causes(), 1);
  end_of_interrupt();
  EXPECT_EQ(raised(), 1) << "the other one has not been served";
  EXPECT_EQ(other->take_causes(), 1);
  end_of_interrupt();
  EXPECT_EQ(raised(), 0);
}

TEST_F(PciInterruptsTest, InterruptDisableSuppressesTheLineButNotTheCauses) {
  interrupts_->set_intx_disabled(true);
  signal(0);
  EXPECT_EQ(raised(), 0);
  interrupts_->set_intx_disabled(false);
  EXPECT_EQ(raised(), 1);
  interrupts_->set_intx_disabled(true);
  end_of_interrupt();
  EXPECT_EQ(raised(), 0);
  EXPECT_EQ(interrupts_->take_causes(), 1);
  interrupts_->set_intx_disabled(false);
  EXPECT_EQ(raised(), 0);
}

TEST_F(PciInterruptsTest, MsixAndTheLineExcludeEachOther) {
  use_msix();
  signal(0);
  EXPECT_EQ(interrupts_->take_causes(), 0);
  interrupts_->set_control(false, false);
  EXPECT_FALSE(interrupts_->msix_enabled());
  sent();
  signal(0);
  EXPECT_THAT(sent(), IsEmpty());
  EXPECT_EQ(raised(), 1);
  interrupts_->set_control(true, false);
  end_of_interrupt();
  EXPECT_EQ(raised(), 0) << "MSI-X is enabled, the cause still there";
  interrupts_->set_control(false, false);
  EXPECT_EQ(raised(), 1);
}

TEST_F(PciInterruptsTest, AFunctionWithoutAPinOnlyKeepsCauses) {
  interrupts_ = make(std::nullopt);
  signal(2);
  EXPECT_EQ(interrupts_->take_causes(), 2);
  EXPECT_THAT(vm_.irqfds(), IsEmpty());
}

TEST_F(PciInterruptsTest, WhatTheRelayHasNotSeenYetIsDelivered) {
  interrupts_->set_control(true, false);
  set_message(0, 0x40);
  interrupts_->set_vector(0, 0);
  signal_eventfd(interrupts_->event(0));
  mask(0, false);
  flush();
  EXPECT_THAT(sent(), ElementsAre(0x40U));
}

TEST_F(PciInterruptsTest, ResetForgetsWhatBelongsToTheDevice) {
  use_msix();
  mask(1, true);
  signal(1);
  interrupts_->reset_events();
  EXPECT_EQ(interrupts_->vector(0), PciInterrupts::kNoVector);
  EXPECT_EQ(pending(), 0U);
  EXPECT_TRUE(interrupts_->msix_enabled());
  EXPECT_EQ(read<uint32_t>(0x18), 0x41U) << "the table is PCI's";
  EXPECT_THAT(vm_.irqfds(), IsEmpty());
  interrupts_->set_vector(1, 1);
  mask(1, false);
  EXPECT_THAT(sent(), IsEmpty());

  interrupts_->set_control(false, false);
  signal(0);
  EXPECT_EQ(raised(), 1);
  interrupts_->reset_events();
  EXPECT_EQ(interrupts_->take_causes(), 0);
  end_of_interrupt();
  EXPECT_EQ(raised(), 0);
}

TEST_F(PciInterruptsTest, LeavesNothingBehind) {
  use_msix();
  signal(0);
  interrupts_->set_control(false, false);
  signal(2);
  interrupts_->set_control(true, false);
  EXPECT_THAT(vm_.irqfds(), SizeIs(3));
  interrupts_.reset();
  EXPECT_THAT(vm_.irqfds(), IsEmpty());
  EXPECT_EQ(*routes_.allocate({}), kFirstGsi) << "the GSIs are free";
}

TEST_F(PciInterruptsTest, WithoutIrqfdsTheRelayDelivers) {
  vm_.fail_with(ENOSPC);
  use_msix();
  EXPECT_THAT(vm_.irqfds(), IsEmpty());
  signal(0);
  EXPECT_THAT(sent(), ElementsAre(0x40U));
  mask(0, true);
  signal(0);
  EXPECT_EQ(pending(), 1U);
  vm_.fail_with(0);
  mask(0, false);
  EXPECT_THAT(sent(), ElementsAre(0x40U));
  EXPECT_THAT(vm_.irqfds(), SizeIs(1)) << "tried again";
}

class FewGsisTest : public PciInterruptsTest {
 protected:
  FewGsisTest() : PciInterruptsTest(/*last_gsi=*/kFirstGsi) {}
};

TEST_F(FewGsisTest, WithoutAGsiTheRelayDelivers) {
  use_msix();
  EXPECT_THAT(vm_.irqfds(), SizeIs(1));
  signal(0);
  signal(1);
  EXPECT_THAT(sent(), testing::UnorderedElementsAre(0x40U, 0x41U));
}

/// A device that signals without pause while the driver changes the way of its event.
class PciInterruptsRaceTest : public PciInterruptsTest {
 protected:
  /// Runs `change` with a growing number, again and again, beside a thread that signals event 0 and
  /// waits each time until it comes, by whichever way.
  template <class Change>
  void race(Change change) {
    std::atomic<bool> done = false;
    int lost = 0;
    int signals = 0;
    std::thread device([&] {
      for (; signals < 2000 && lost == 0; ++signals) {
        sent();
        interrupts_->take_causes();
        signal_eventfd(interrupts_->event(0));
        auto give_up = std::chrono::steady_clock::now() + 10s;
        while (sent().empty() && interrupts_->take_causes() == 0) {
          if (std::chrono::steady_clock::now() > give_up) {
            ++lost;
            break;
          }
        }
      }
      done = true;
    });
    for (int i = 0; !done; ++i) change(i);
    device.join();
    EXPECT_EQ(lost, 0) << "after " << signals;
  }
};

TEST_F(PciInterruptsRaceTest, MaskingAVectorLosesNothing) {
  use_msix();
  race([this](int i) { mask(0, i % 2 == 0); });
}

TEST_F(PciInterruptsRaceTest, TheFunctionMaskLosesNothing) {
  use_msix();
  race([this](int i) { interrupts_->set_control(true, i % 2 == 0); });
}

TEST_F(PciInterruptsRaceTest, ChangingBetweenMsixAndTheLineLosesNothing) {
  use_msix();
  race([this](int i) { interrupts_->set_control(i % 2 == 0, false); });
}

TEST_F(PciInterruptsRaceTest, MovingBetweenVectorsAndMessagesLosesNothing) {
  use_msix();
  race([this](int i) {
    interrupts_->set_vector(0, i % 2);
    set_message(0, 0x40U + static_cast<uint32_t>(i % 7));
  });
}

TEST_F(PciInterruptsRaceTest, EverythingAtOnceDoesNoHarm) {
  use_msix();
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  auto repeat = [&](auto action) {
    threads.emplace_back([&done, action] {
      for (int i = 0; !done; ++i) action(i);
    });
  };
  repeat([this](int i) { signal_eventfd(interrupts_->event(static_cast<size_t>(i % 3))); });
  repeat([this](int i) { mask(static_cast<uint16_t>(i % 4), i % 3 == 0); });
  repeat([this](int i) {
    interrupts_->set_control(i % 5 != 0, i % 3 == 0);
    interrupts_->set_intx_disabled(i % 2 == 0);
    interrupts_->set_vector(2, static_cast<uint16_t>(i % 6));
    if (i % 11 == 0) interrupts_->reset_events();
  });
  repeat([this](int) {
    sent();
    vm_.end_of_interrupt(kIntxGsi);
    interrupts_->take_causes();
    pending();
  });
  std::this_thread::sleep_for(200ms);
  done = true;
  for (auto& thread : threads) thread.join();
  interrupts_.reset();
  EXPECT_THAT(vm_.irqfds(), IsEmpty());
}

}  // namespace
}  // namespace crosvm
