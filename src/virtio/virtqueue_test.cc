#include "virtio/virtqueue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <thread>

#include "base/shared_eventfd.h"
#include "virtio/rig/hostile_chains.h"
#include "virtio/rig/packed_driver_ring.h"
#include "virtio/rig/queue_bench.h"
#include "virtio/rig/split_driver_ring.h"

namespace crosvm {
namespace {

using testing::HasSubstr;

/// What the error says of each fault.
struct Complaint {
  ChainFault fault;
  const char* text;
};
constexpr Complaint kComplaints[] = {
    {ChainFault::kAllZeroLength, "without a single byte"},
    {ChainFault::kPastRam, "outside guest RAM"},
    {ChainFault::kInHole, "outside guest RAM"},
    {ChainFault::kAcrossHole, "outside guest RAM"},
    {ChainFault::kWrapsAround, "outside guest RAM"},
    {ChainFault::kReadableAfterWritable, "follows a device-writable one"},
    {ChainFault::kLoop, "more than 16 descriptors"},
    {ChainFault::kHeadOutOfRange, "head"},
    {ChainFault::kUnknownFlags, "flags"},
    {ChainFault::kNestedIndirect, "INDIRECT in a table"},
    {ChainFault::kTableOddLength, "an indirect table of"},
    {ChainFault::kTableEmpty, "an indirect table of 0 bytes"},
    {ChainFault::kTableOutside, "an indirect table: "},
    {ChainFault::kTableLoop, "a loop"},
    {ChainFault::kTableNextOutOfRange, "in a table of"},
    {ChainFault::kTableTooLong, "an indirect table of 17 entries"},
    {ChainFault::kIndirectInList, "in a list"},
    {ChainFault::kIndirectUnasked, "without VIRTIO_F_INDIRECT_DESC"},
    {ChainFault::kIndexAhead, "ahead of us"},
    {ChainFault::kIndexBehind, "ahead of us"},
};

class BothRings : public testing::TestWithParam<bool> {
 protected:
  static QueueBench::Options options(uint16_t size = 16, bool event_idx = true) {
    return {.size = size, .packed = GetParam(), .event_idx = event_idx};
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, BothRings, testing::Bool(),
                         [](const auto& info) { return info.param ? "Packed" : "Split"; });

TEST_P(BothRings, SayWhatIsWrongWithAChainAndStayBroken) {
  for (const bool indirect : {false, true}) {
    for (const Complaint& complaint : kComplaints) {
      QueueBench bench({.packed = GetParam(), .indirect = indirect});
      HostileChains chains(bench.driver(), 3);
      if (!chains.can(complaint.fault)) continue;
      chains.offer(complaint.fault);
      const auto popped = bench.queue().pop();
      ASSERT_FALSE(popped.has_value()) << name_of(complaint.fault);
      EXPECT_THAT(popped.error().what(), HasSubstr(complaint.text));
      EXPECT_THAT(popped.error().what(), HasSubstr("queue 5: "));
      EXPECT_FALSE(bench.queue().pop().has_value());
      EXPECT_EQ(bench.queue().in_flight(), 0u);
    }
  }
}

TEST_P(BothRings, RefuseAHeadThatIsInFlight) {
  QueueBench bench(options());
  const GuestAddress buffer = bench.memory().allocate(64);
  auto offer = [&] {
    if (GetParam()) {
      auto& ring = static_cast<PackedDriverRing&>(bench.driver().ring());
      const PackedDriverRing::Element element{buffer.value, 64, 9, VRING_DESC_F_WRITE};
      ring.offer({&element, 1});
    } else {
      auto& ring = static_cast<SplitDriverRing&>(bench.driver().ring());
      ring.split()->set_descriptor(9, {buffer.value, 64, VRING_DESC_F_WRITE, 0});
      ring.offer(9);
      ring.publish();
    }
  };
  offer();
  DescriptorChain chain = bench.pop();
  offer();
  const auto again = bench.queue().pop();
  ASSERT_FALSE(again.has_value());
  EXPECT_THAT(again.error().what(), HasSubstr("in flight already"));
}

TEST_P(BothRings, RefuseChainsThatShareElements) {
  // Nine descriptors each in a ring of sixteen: two such chains cannot be in flight.
  QueueBench bench(options());
  const GuestAddress buffer = bench.memory().allocate(64);
  std::vector<DriverBuffer> nine(9, {.address = buffer, .length = 1, .writable = false});
  ASSERT_TRUE(bench.driver().ring().add(nine, std::nullopt));
  bench.driver().ring().publish();
  DescriptorChain chain = bench.pop();
  if (GetParam()) {
    auto& ring = static_cast<PackedDriverRing&>(bench.driver().ring());
    std::vector<PackedDriverRing::Element> elements(9, {buffer.value, 1, 77, VRING_DESC_F_NEXT});
    ring.offer(elements);
  } else {
    auto& ring = static_cast<SplitDriverRing&>(bench.driver().ring());
    // Begins in the free part and runs into the other chain's.
    ring.split()->set_descriptor(9, {buffer.value, 1, VRING_DESC_F_NEXT, 0});
    ring.offer(9);
    ring.publish();
  }
  EXPECT_FALSE(bench.queue().pop().has_value());
}

TEST_P(BothRings, GiveSeveralBackAtOnceInOrder) {
  QueueBench bench(options(8));
  const GuestAddress buffer = bench.memory().allocate(64);
  for (int round = 0; round < 30; ++round) {  // over the end of the ring in every way
    std::vector<UsedChain> chains;
    std::vector<uint16_t> ids;
    for (uint32_t i = 0; i < 3; ++i) {
      const DriverBuffer one{.address = buffer, .length = 16, .writable = true};
      const auto id = bench.driver().ring().add({&one, 1}, std::nullopt);
      ASSERT_TRUE(id);
      ids.push_back(*id);
      bench.driver().ring().publish();
      chains.push_back({.chain = bench.pop(), .written = i + 1});
    }
    EXPECT_FALSE(bench.driver().ring().take_used());
    bench.queue().push_used_together(chains);
    EXPECT_EQ(bench.queue().in_flight(), 0u);
    for (uint32_t i = 0; i < 3; ++i) {
      const auto used = bench.driver().ring().take_used();
      ASSERT_TRUE(used);
      EXPECT_EQ(used->id, ids[i]);
      EXPECT_EQ(used->written, i + 1);
    }
    EXPECT_FALSE(bench.driver().ring().take_used());
    bench.queue().signal_used_if_needed();
  }
}

TEST_P(BothRings, GoRoundMoreOftenThanTheirIndexCan) {
  QueueBench bench(options(4, false));
  const GuestAddress buffer = bench.memory().allocate(64);
  const DriverBuffer buffers[3] = {{.address = buffer, .length = 1, .writable = false},
                                   {.address = buffer, .length = 2, .writable = false},
                                   {.address = buffer, .length = 4, .writable = true}};
  for (uint32_t round = 0; round < 70'000; ++round) {
    const size_t count = 1 + round % 3;
    const auto id = bench.driver().ring().add(std::span(buffers).last(count), std::nullopt);
    ASSERT_TRUE(id.has_value()) << round;
    ASSERT_TRUE(bench.driver().ring().publish());
    bench.answer(round % 5);
    const auto used = bench.driver().ring().take_used();
    ASSERT_TRUE(used.has_value()) << round;
    ASSERT_EQ(used->id, *id);
    ASSERT_EQ(used->written, round % 5);
    ASSERT_TRUE(bench.is_empty());
    ASSERT_EQ(bench.queue().position(), bench.driver().ring().position());
  }
}

TEST_P(BothRings, TakeChainsBackInAnyOrder) {
  QueueBench bench(options(8));
  std::vector<RigToken> tokens;
  for (int i = 0; i < 8; ++i) tokens.push_back(bench.driver().add({writable(1)}));
  bench.driver().kick();
  std::vector<DescriptorChain> chains;
  for (int i = 0; i < 8; ++i) chains.push_back(bench.pop());
  EXPECT_EQ(bench.queue().in_flight(), 8u);
  EXPECT_TRUE(bench.is_empty());
  for (const int i : {3, 7, 0, 1, 6, 2, 5, 4}) {
    ASSERT_TRUE(chains[i].device_writable().write(0, static_cast<uint8_t>(i)));
    bench.queue().push_used(std::move(chains[i]), 1);
    const RigUsed used = bench.driver().wait_used();
    EXPECT_EQ(used.token, tokens[i]);
    EXPECT_EQ(used.last_byte(), i);
  }
  EXPECT_EQ(bench.queue().in_flight(), 0u);
}

TEST_P(BothRings, UndoTheLastPopEvenAcrossTheEnd) {
  QueueBench bench(options(4));
  const GuestAddress buffer = bench.memory().allocate(64);
  const std::vector<DriverBuffer> three(3, {.address = buffer, .length = 1, .writable = false});
  for (int round = 0; round < 20; ++round) {
    ASSERT_TRUE(bench.driver().ring().add(three, std::nullopt));
    bench.driver().ring().publish();
    const RingPosition before = bench.queue().position();
    DescriptorChain chain = bench.pop();
    bench.queue().undo_pop(std::move(chain));
    EXPECT_EQ(bench.queue().position(), before);
    EXPECT_EQ(bench.queue().in_flight(), 0u);
    DescriptorChain again = bench.pop();
    EXPECT_EQ(again.device_readable().size(), 3u);
    bench.queue().push_used(std::move(again), 0);
    ASSERT_TRUE(bench.driver().ring().take_used());
  }
}

TEST_P(BothRings, ResumeWhereTheyStopped) {
  const RingPosition starts[] = {{.index = 3}, {.index = 15, .wrap_counter = false}};
  for (RingPosition start : starts) {
    if (!GetParam()) start = {.index = 65534};  // a free-running index, over its end
    QueueBench bench(options(), start);
    for (int i = 0; i < 40; ++i) {
      const RigToken token = bench.driver().send({readable("abc"), writable(1)});
      bench.answer();
      EXPECT_EQ(bench.driver().wait_used().token, token);
      bench.reopen(bench.queue().position());
      EXPECT_TRUE(bench.is_empty());
    }
    EXPECT_NE(bench.queue().position(), start);
  }
}

TEST_P(BothRings, RefuseRingsThatCannotBe) {
  QueueBench bench(options());
  auto refuses = [&](std::string_view text, auto change) {
    VirtqueueSetup setup = bench.setup();
    change(setup);
    const auto made = Virtqueue::create(bench.memory().guest(), std::move(setup));
    ASSERT_FALSE(made.has_value()) << text;
    EXPECT_THAT(made.error().what(), HasSubstr(text));
    EXPECT_THAT(made.error().what(), HasSubstr("queue 5: "));
  };
  refuses("size is 0", [](VirtqueueSetup& setup) { setup.size = 0; });
  refuses("size is 32769", [](VirtqueueSetup& setup) { setup.size = 32769; });
  if (GetParam()) {
    refuses("position 16", [](VirtqueueSetup& setup) { setup.position.index = 16; });
  } else {
    refuses("no power of two", [](VirtqueueSetup& setup) { setup.size = 12; });
  }
  refuses("not aligned to 16",
          [](VirtqueueSetup& setup) { setup.addresses.descriptor_area.value += 8; });
  refuses("not aligned", [](VirtqueueSetup& setup) { setup.addresses.driver_area.value += 1; });
  refuses("not aligned to 4",
          [](VirtqueueSetup& setup) { setup.addresses.device_area.value += 2; });
  for (const GuestAddress outside : {RigMemory::kLowEnd, GuestAddress{RigMemory::kEnd.value - 16},
                                     GuestAddress{UINT64_MAX - 15}}) {
    refuses("not in one region of guest memory",
            [=](VirtqueueSetup& setup) { setup.addresses.descriptor_area = outside; });
  }
  refuses("not in one region of guest memory",
          [](VirtqueueSetup& setup) { setup.addresses.driver_area = RigMemory::kLowEnd; });
  refuses("not in one region of guest memory",
          [](VirtqueueSetup& setup) { setup.addresses.device_area = RigMemory::kEnd; });
}

TEST_P(BothRings, AcceptEveryLegalSize) {
  for (const uint16_t size : {1, 2, 32768}) {
    QueueBench bench(options(size));
    bench.driver().send({readable("abc")});
    bench.answer();
    EXPECT_TRUE(bench.driver().wait_used().arrived);
  }
  if (!GetParam()) return;
  QueueBench odd(options(7));  // §2.8.10.1: a packed ring may have any size
  for (int i = 0; i < 30; ++i) {
    odd.driver().send({readable("abc")});
    odd.answer();
    EXPECT_TRUE(odd.driver().wait_used().arrived);
  }
}

// Kicks (§2.7.10, §2.8.21.3).

TEST_P(BothRings, WithEventIdxAskForAKickOnlyWhenTheyRanEmpty) {
  QueueBench bench(options());
  EXPECT_TRUE(bench.is_empty());
  auto add = [&] {
    bench.driver().add({readable("x")});
    return bench.driver().kick();
  };
  EXPECT_TRUE(add());   // the device waits for this one
  EXPECT_FALSE(add());  // it has not looked yet
  bench.answer();
  EXPECT_FALSE(add());  // it is not done
  bench.answer();
  bench.answer();
  EXPECT_TRUE(bench.is_empty());
  for (int i = 0; i < 3; ++i) bench.driver().wait_used();
  EXPECT_TRUE(add());
}

TEST_P(BothRings, WithoutEventIdxAlwaysWantKicks) {
  QueueBench bench(options(16, false));
  EXPECT_TRUE(bench.is_empty());
  for (int i = 0; i < 3; ++i) {
    bench.driver().add({readable("x")});
    EXPECT_TRUE(bench.driver().kick());
  }
}

// Interrupts (§2.7.7, §2.8.10).

TEST_P(BothRings, InterruptOnlyForNewUsedChainsAndIfWanted) {
  for (const bool event_idx : {false, true}) {
    QueueBench bench(options(16, event_idx));
    for (int i = 0; i < 4; ++i) bench.driver().send({readable("x")});
    EXPECT_FALSE(bench.queue().signal_used_if_needed());  // nothing was used
    bench.driver().ring().ask_for_interrupt();
    bench.answer();
    EXPECT_TRUE(bench.queue().signal_used_if_needed());
    EXPECT_EQ(bench.driver().take_interrupts(), 1u);
    EXPECT_FALSE(bench.queue().signal_used_if_needed());
    bench.driver().ring().refuse_interrupts();
    bench.answer();
    EXPECT_FALSE(bench.queue().signal_used_if_needed());
    EXPECT_EQ(bench.driver().take_interrupts(), 0u);
    // What was decided is not decided again when the driver changes its mind.
    if (!event_idx) bench.driver().ring().ask_for_interrupt();
    EXPECT_FALSE(bench.queue().signal_used_if_needed());
  }
}

TEST_P(BothRings, InterruptAtTheUsedEventWhereverTheRingIs) {
  // Over the end of a packed ring of 7 and of a split ring's 16-bit index.
  const uint16_t size = GetParam() ? 7 : 8;
  QueueBench bench(options(size), {.index = GetParam() ? uint16_t{2} : uint16_t{65500}});
  for (int round = 0; round < 60; ++round) {
    const uint16_t more = static_cast<uint16_t>(round % 5);
    for (int i = 0; i < 6; ++i) bench.driver().send({readable("x")});
    bench.driver().ring().ask_for_interrupt(more);
    for (int i = 0; i < 6; ++i) {
      bench.answer();
      EXPECT_EQ(bench.queue().signal_used_if_needed(), i == more) << "round " << round;
    }
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(bench.driver().try_used());
    // The same in one batch.
    for (int i = 0; i < 6; ++i) bench.driver().send({readable("x")});
    bench.driver().ring().ask_for_interrupt(more);
    for (int i = 0; i < 6; ++i) bench.answer();
    EXPECT_TRUE(bench.queue().signal_used_if_needed()) << "round " << round;
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(bench.driver().try_used());
  }
}

TEST(PackedRing, CountsTheElementsOfAChainForTheUsedEvent) {
  QueueBench bench({.size = 8, .packed = true, .indirect = false});
  for (int i = 0; i < 4; ++i) bench.driver().send({readable("x"), writable(1)});
  bench.driver().ring().ask_for_interrupt(3);  // inside the second chain
  bench.answer();
  EXPECT_FALSE(bench.queue().signal_used_if_needed());
  bench.answer();
  EXPECT_TRUE(bench.queue().signal_used_if_needed());
}

TEST(SplitRing, DoesNotTrustTheUsedIndexInTheRing) {
  QueueBench bench({});
  for (int i = 0; i < 3; ++i) bench.driver().send({readable("x")});
  bench.answer();
  bench.driver().ring().split()->set_used_idx(40000);
  bench.answer();
  EXPECT_EQ(bench.driver().ring().split()->used_idx(), 2u);
}

TEST(SplitRing, WritesUsedElementsAsTheSpecificationHasThem) {
  QueueBench bench({.size = 4});
  bench.driver().send({writable(300)});
  DescriptorChain chain = bench.pop();
  bench.queue().push_used(std::move(chain), 258);
  const GuestAddress used = bench.driver().ring().addresses().device_area;
  EXPECT_EQ(*bench.memory().guest().read<uint16_t>(used + 2), 1u);
  EXPECT_EQ(*bench.memory().guest().read<uint32_t>(used + 4), 0u);
  EXPECT_EQ(*bench.memory().guest().read<uint32_t>(used + 8), 258u);
}

// Listening.

class Listening : public BothRings {
 protected:
  std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
  void turn(int times = 3) {
    for (int i = 0; i < times; ++i) ASSERT_TRUE(loop_->run_once(std::chrono::milliseconds(0)));
  }
};
INSTANTIATE_TEST_SUITE_P(Rings, Listening, testing::Bool(),
                         [](const auto& info) { return info.param ? "Packed" : "Split"; });

TEST_P(Listening, LooksAtTheRingOnceWithoutAKickThenOnKicks) {
  QueueBench bench(options());
  int calls = 0;
  ASSERT_TRUE(bench.queue().listen(
      *loop_, [&]() -> Result<void> { return ++calls, Result<void>(); }, [](Error) { FAIL(); }));
  EXPECT_EQ(calls, 0);
  turn();
  EXPECT_EQ(calls, 1);
  bench.driver().kick_anyway();
  bench.driver().kick_anyway();
  turn();
  EXPECT_EQ(calls, 2);
  bench.queue().unlisten();
  bench.driver().kick_anyway();
  turn();
  EXPECT_EQ(calls, 2);
  EXPECT_GE(drain_eventfd(bench.driver().kick_descriptor()), 1u);  // kept
}

TEST_P(Listening, EmptiesAnEventThatSomebodyElseHasFilled) {
  QueueBench bench(options());
  const uint64_t most = UINT64_MAX - 1;
  ASSERT_EQ(::write(bench.driver().kick_descriptor().get(), &most, sizeof(most)), 8);
  int calls = 0;
  ASSERT_TRUE(bench.queue().listen(
      *loop_, [&]() -> Result<void> { return ++calls, Result<void>(); }, [](Error) { FAIL(); }));
  turn();
  EXPECT_EQ(calls, 1);
  signal_shared_eventfd(bench.driver().kick_descriptor());
  turn();
  EXPECT_EQ(calls, 2);
}

TEST_P(Listening, TellsOfABrokenRingOnce) {
  QueueBench bench(options());
  std::vector<std::string> errors;
  ASSERT_TRUE(bench.queue().listen(
      *loop_,
      [&]() -> Result<void> {
        while (TRY(bench.queue().pop())) {
        }
        return {};
      },
      [&](Error error) { errors.push_back(error.what()); }));
  HostileChains(bench.driver(), 1).offer(ChainFault::kPastRam);
  for (int i = 0; i < 3; ++i) {
    bench.driver().kick_anyway();
    turn();
  }
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_THAT(errors[0], HasSubstr("outside guest RAM"));
}

TEST_P(Listening, OutlivesAQueueThatIsDestroyedInItsCallback) {
  QueueBench bench(options());
  auto queue = Virtqueue::create(bench.memory().guest(), bench.setup());
  ASSERT_TRUE(queue.has_value());
  std::optional<Virtqueue> mine(std::move(*queue));
  int calls = 0;
  ASSERT_TRUE(mine->listen(
      *loop_,
      [&]() -> Result<void> {
        ++calls;
        mine.reset();
        return {};
      },
      [](Error) { FAIL(); }));
  bench.driver().kick_anyway();
  turn();
  EXPECT_EQ(calls, 1);
}

TEST_P(Listening, LeavesTheLoopToOthersWhenTheRingNeverEmpties) {
  QueueBench bench(options(8));
  int popped = 0;
  ASSERT_TRUE(bench.queue().listen(
      *loop_,
      [&]() -> Result<void> {
        while (auto chain = TRY(bench.queue().pop())) {
          bench.queue().push_used(std::move(*chain), 0);
          ++popped;
          bench.driver().ring().take_used();
          bench.driver().ring().add(
              std::vector<DriverBuffer>{{.address = GuestAddress{64}, .length = 1}}, std::nullopt);
          bench.driver().ring().publish();
        }
        return {};
      },
      [](Error) { FAIL(); }));
  bench.driver().send({readable("x")});
  turn(1);
  const int first = popped;
  EXPECT_GE(first, 8);
  EXPECT_LE(first, 24);  // the kick, the first look, and what the one or the other left
  turn(1);
  EXPECT_GT(popped, first);  // without another kick
  EXPECT_LE(popped, 2 * 24);
}

// A driver that rewrites descriptors while the device reads them.

TEST_P(BothRings, HoldWhileAThreadRewritesThem) {
  QueueBench bench(options(8, false));
  const GuestAddress buffer = bench.memory().allocate(4096);
  const GuestAddress table = bench.memory().allocate(16 * 8);
  const auto words =
      bench.memory().guest().slice(bench.driver().ring().addresses().descriptor_area, 8 * 16);
  const auto table_words = bench.memory().guest().slice(table, 8 * 16);
  ASSERT_TRUE(words && table_words);
  const uint64_t addresses[] = {buffer.value, buffer.value + 1, RigMemory::kLowEnd.value - 8,
                                UINT64_MAX};
  auto scribble = [&](std::mt19937_64& random) {
    const GuestSlice& target = random() % 2 ? *words : *table_words;
    const size_t at = random() % 8 * 16;
    const bool points_to_table = &target == &*words && random() % 4 == 0;
    target.store_relaxed<uint64_t>(at, points_to_table ? table.value : addresses[random() % 4]);
    target.store_relaxed<uint32_t>(at + 8, static_cast<uint32_t>(random() % 130));
    // Flags, the next index or the buffer id; the bits of a packed ring as well.
    target.store_relaxed<uint16_t>(at + 12, static_cast<uint16_t>(random() % 8));
    target.store_relaxed<uint16_t>(at + 14, static_cast<uint16_t>(random() & 0x8087));
  };
  std::atomic<bool> done = false;
  std::thread racer([&] {
    std::mt19937_64 random(5);
    while (!done) scribble(random);
  });
  std::mt19937_64 random(6);  // here too, lest all depends on how the threads are scheduled
  unsigned good = 0;
  unsigned bad = 0;
  const auto deadline = RigWaiter::Clock::now() + std::chrono::seconds(20);
  auto enough = [&] { return good > 200 && bad > 200; };
  for (int round = 0; !enough() && RigWaiter::Clock::now() < deadline; ++round) {
    scribble(random);
    if (!GetParam()) {
      auto& ring = static_cast<SplitDriverRing&>(bench.driver().ring());
      ring.offer(static_cast<uint16_t>(round % 8));
      ring.publish();
    }
    auto popped = bench.queue().pop();
    if (!popped) {
      ++bad;
      bench.driver().restart({});
      bench.reopen({});
      continue;
    }
    if (!*popped) continue;
    ++good;
    DescriptorChain chain = std::move(**popped);
    const uint64_t room = chain.device_writable().size();
    EXPECT_GT(room + chain.device_readable().size(), 0u);
    EXPECT_LE(room + chain.device_readable().size(), 8u * 129);  // no length was read twice
    bench.queue().push_used(std::move(chain), static_cast<uint32_t>(room));
  }
  done = true;
  racer.join();
  EXPECT_TRUE(enough()) << good << " chains, " << bad << " errors";
}

}  // namespace
}  // namespace crosvm
