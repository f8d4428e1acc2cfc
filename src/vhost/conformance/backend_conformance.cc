#include "vhost/conformance/backend_conformance.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <future>
#include <random>
#include <thread>

#include "base/format.h"
#include "virtio/ring_abi.h"

namespace crosvm {

using namespace std::chrono_literals;

namespace {

Fd copy_of(const Fd& fd) {
  auto copy = fd.duplicate();
  CHECK(copy.has_value());
  return std::move(*copy);
}

Fd new_event() {
  auto event = make_eventfd();
  CHECK(event.has_value());
  return std::move(*event);
}

/// What every verb of a ring can be told in any order.
using Verb = std::function<void(DeviceBackend&)>;
std::vector<Verb> verbs_of(Rig& rig, uint16_t queue, RingPosition position) {
  RigDriver& driver = rig.driver(queue);
  return {
      [&rig](DeviceBackend& to) { to.set_features(rig.features()); },
      [&rig](DeviceBackend& to) { to.set_memory(rig.memory().guest()); },
      [=, &driver](DeviceBackend& to) { to.set_vring_num(queue, driver.options().ring.size); },
      [=, &driver](DeviceBackend& to) { to.set_vring_addr(queue, driver.ring().addresses()); },
      [=](DeviceBackend& to) { to.set_vring_base(queue, position); },
      [=, &driver](DeviceBackend& to) {
        to.set_vring_call(queue, copy_of(driver.call_descriptor()));
      },
      [=, &driver](DeviceBackend& to) {
        to.set_vring_kick(queue, copy_of(driver.kick_descriptor()));
      },
      [=](DeviceBackend& to) { to.set_vring_enable(queue, true); },
  };
}

RingPosition stop(DeviceBackend& backend, uint16_t queue) {
  std::promise<RingPosition> stopped;
  backend.get_vring_base(queue, [&](RingPosition at) { stopped.set_value(at); });
  return stopped.get_future().get();
}

}  // namespace

std::string name_of_maker(const testing::TestParamInfo<BackendMaker>& info) {
  return info.param.name;
}

void BackendConformance::SetUp() {
  if (GetParam().missing) {
    if (const std::string why = GetParam().missing(); !why.empty()) GTEST_SKIP() << why;
  }
}

Rig BackendConformance::make_rig(const RigOptions& options, const SubjectOptions& subject) {
  subject_ = GetParam().make(subject);
  return Rig::attach(subject_->take_backend(), options);
}

void BackendConformance::settle(Rig& rig) const {
  const uint16_t other = subject_->queue() == 0 ? 1 : 0;
  rig.start_queue(other, rig.stop_queue(other));
}

void BackendConformance::exchange(Rig& rig) { exchange(rig, subject_->queue()); }

void BackendConformance::exchange(Rig& rig, uint16_t queue) {
  const unsigned number = next_number();
  const RigToken token = rig.driver(queue).send(subject_->request(number));
  subject_->expect_answer(rig.driver(queue).wait_used(token), number);
}

// ---- for every backend

TEST_P(BackendConformance, AnswersOnSplitRings) {
  for (const bool event_idx : {false, true}) {
    for (const bool indirect : {false, true}) {
      Rig rig = make_rig({.event_idx = event_idx, .indirect = indirect, .max_queue_size = 16});
      for (int i = 0; i < 100; ++i) exchange(rig);
      EXPECT_FALSE(rig.needs_reset());
    }
  }
}

TEST_P(BackendConformance, AnswersManyRequestsAtOnce) {
  Rig rig = make_rig({}, {.late = true});
  for (int round = 0; round < 20; ++round) {
    std::vector<std::pair<RigToken, unsigned>> sent;
    for (int i = 0; i < 32; ++i) {
      const unsigned number = next_number();
      sent.emplace_back(driver(rig).add(subject().request(number)), number);
    }
    driver(rig).kick();
    for (const auto& [token, number] : sent) {
      subject().expect_answer(driver(rig).wait_used(token), number);
    }
  }
}

TEST_P(BackendConformance, TakesTheVerbsInAnyOrder) {
  Rig rig = make_rig({.start = false});
  const uint16_t queue = subject().queue();
  std::mt19937 random(4711);
  for (int round = 0; round < 100; ++round) {
    rig.reset_and_stay();
    driver(rig).restart({});
    auto verbs = verbs_of(rig, queue, {});
    std::ranges::shuffle(verbs, random);
    for (const Verb& verb : verbs) verb(rig.backend());
    exchange(rig);
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "in round " << round;
      return;
    }
  }
}

TEST_P(BackendConformance, SeesWhatWasKickedBeforeItStarted) {
  Rig rig = make_rig({.start = false});
  const uint16_t queue = subject().queue();
  for (int round = 0; round < 20; ++round) {
    rig.reset_and_stay();
    driver(rig).restart({});
    const unsigned number = next_number();
    const RigToken token = driver(rig).send(subject().request(number));
    driver(rig).kick_anyway();
    for (const Verb& verb : verbs_of(rig, queue, {})) verb(rig.backend());
    subject().expect_answer(driver(rig).wait_used(token), number);
  }
}

TEST_P(BackendConformance, GoesOnWhereItStopped) {
  Rig rig = make_rig({.max_queue_size = 16});
  const uint16_t queue = subject().queue();
  uint16_t sent = 0;
  for (int round = 0; round < 60; ++round) {
    for (int i = 0; i < 1 + round % 5; ++i, ++sent) exchange(rig);
    const RingPosition at = rig.stop_queue(queue);
    ASSERT_EQ(at.index, sent);
    const unsigned number = next_number();
    const RigToken token = driver(rig).send(subject().request(number));
    ++sent;
    EXPECT_FALSE(driver(rig).try_used()) << "answered by a ring that has stopped";
    rig.start_queue(queue, at);
    subject().expect_answer(driver(rig).wait_used(token), number);
  }
}

TEST_P(BackendConformance, StopsWhenNothingIsInFlight) {
  Rig rig = make_rig({}, {.late = true});
  for (int round = 0; round < 30; ++round) {
    for (int i = 0; i < 20; ++i) driver(rig).send(subject().request(next_number()));
    const RingPosition at = rig.stop_queue(subject().queue());
    size_t answered = 0;
    while (driver(rig).try_used()) ++answered;
    // What was taken came back; what was not is still there.
    rig.start_queue(subject().queue(), at);
    for (; answered < 20; ++answered) ASSERT_TRUE(driver(rig).wait_used().arrived);
  }
}

TEST_P(BackendConformance, StopsARingThatNeverRan) {
  Rig rig = make_rig({.start = false});
  const uint16_t queue = subject().queue();
  rig.backend().set_vring_base(queue, {.index = 5});
  EXPECT_EQ(stop(rig.backend(), queue).index, 5);
  EXPECT_EQ(stop(rig.backend(), queue).index, 5);
  (void)stop(rig.backend(), 9999);  // there is none; it is said all the same
}

TEST_P(BackendConformance, RunsOnlyWhileEnabled) {
  Rig rig = make_rig();
  const uint16_t queue = subject().queue();
  for (int round = 0; round < 10; ++round) {
    exchange(rig);
    rig.backend().set_vring_enable(queue, false);
    settle(rig);
    const unsigned number = next_number();
    const RigToken token = driver(rig).send(subject().request(number));
    EXPECT_FALSE(driver(rig).wait_used(token, 10ms).arrived);
    rig.backend().set_vring_enable(queue, true);
    subject().expect_answer(driver(rig).wait_used(token), number);
  }
}

TEST_P(BackendConformance, ForgetsAllButTheMemoryInAReset) {
  Rig rig = make_rig();
  const uint16_t queue = subject().queue();
  exchange(rig);
  rig.reset_and_stay();
  driver(rig).restart({});
  const unsigned number = next_number();
  const RigToken token = driver(rig).send(subject().request(number));
  driver(rig).kick_anyway();
  // No single verb makes the ring run again.
  rig.backend().set_features(rig.features());
  rig.backend().set_vring_enable(queue, true);
  EXPECT_FALSE(driver(rig).wait_used(token, 20ms).arrived);
  auto verbs = verbs_of(rig, queue, {});
  verbs.erase(verbs.begin() + 1);  // the memory
  for (const Verb& verb : verbs) verb(rig.backend());
  subject().expect_answer(driver(rig).wait_used(token), number);
}

TEST_P(BackendConformance, ResetsUnderLoad) {
  Rig rig = make_rig({}, {.late = true});
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < round % 30; ++i) driver(rig).send(subject().request(next_number()));
    if (round % 3 == 0) std::this_thread::yield();
    rig.reset();
    exchange(rig);
  }
}

TEST_P(BackendConformance, InterruptsThroughTheLastDescriptorItWasGiven) {
  Rig rig = make_rig({.event_idx = false});
  const uint16_t queue = subject().queue();
  Fd masked = new_event();
  for (int round = 0; round < 20; ++round) {
    // Unmasked: by the driver's own.
    exchange(rig);
    // Masked: into another, as for the pending bit array.
    rig.backend().set_vring_call(queue, copy_of(masked));
    settle(rig);
    const unsigned number = next_number();
    const RigToken token = driver(rig).send(subject().request(number));
    std::optional<RigUsed> used;
    const auto deadline = RigWaiter::Clock::now() + RigDriver::kPatience;
    while (!used && RigWaiter::Clock::now() < deadline) {
      used = driver(rig).try_used();
      if (!used) std::this_thread::sleep_for(100us);
    }
    ASSERT_TRUE(used && used->token == token);
    subject().expect_answer(*used, number);
    uint64_t signals = 0;
    while (signals == 0 && RigWaiter::Clock::now() < deadline) signals = drain_eventfd(masked);
    EXPECT_GE(signals, 1u) << "the interrupt went elsewhere";
    rig.backend().set_vring_call(queue, copy_of(driver(rig).call_descriptor()));
    settle(rig);
  }
}

TEST_P(BackendConformance, RunsWithoutAnInterruptDescriptor) {
  Rig rig = make_rig();
  rig.backend().set_vring_call(subject().queue(), Fd());
  const unsigned number = next_number();
  driver(rig).send(subject().request(number));
  std::optional<RigUsed> used;
  const auto deadline = RigWaiter::Clock::now() + RigDriver::kPatience;
  while (!used && RigWaiter::Clock::now() < deadline) used = driver(rig).try_used();
  ASSERT_TRUE(used);
  subject().expect_answer(*used, number);
  rig.backend().set_vring_call(subject().queue(), copy_of(driver(rig).call_descriptor()));
  settle(rig);
  exchange(rig);
}

TEST_P(BackendConformance, SurvivesValuesThatCannotBe) {
  Rig rig = make_rig({.start = false});
  const uint16_t queue = subject().queue();
  DeviceBackend& backend = rig.backend();
  const GuestAddress outside = RigMemory::kEnd;
  const GuestAddress high{UINT64_MAX - 15};
  const VringAddresses good = driver(rig).ring().addresses();
  const std::array<VringAddresses, 6> bad{
      {{outside, outside, outside},
       {high, high, high},
       {GuestAddress{1}, GuestAddress{1}, GuestAddress{1}},
       {good.descriptor_area, good.driver_area, high},
       {good.descriptor_area, outside, good.device_area},
       {RigMemory::kLowEnd, good.driver_area, good.device_area}}};
  for (const uint16_t index : {queue, uint16_t{200}, uint16_t{0xffff}}) {
    for (const uint16_t size : {uint16_t{0}, uint16_t{3}, uint16_t{32768}, uint16_t{0xffff}}) {
      for (const VringAddresses& addresses : bad) {
        backend.set_memory(rig.memory().guest());
        backend.set_features(~uint64_t{0} & ~(uint64_t{1} << VIRTIO_F_RING_PACKED));
        backend.set_vring_num(index, size);
        backend.set_vring_addr(index, addresses);
        backend.set_vring_base(index, {.index = 0xffff, .wrap_counter = false});
        backend.set_vring_kick(index, new_event());
        backend.set_vring_call(index, new_event());
        backend.set_vring_enable(index, true);
        if (size == 3) rig.reset_and_stay();
      }
    }
  }
  backend.set_config(0, {});
  backend.set_config(SIZE_MAX, std::vector<std::byte>(8));
  backend.set_config(0, std::vector<std::byte>(100'000));
  backend.set_config(1 << 20, std::vector<std::byte>(1));
  rig.reset();
  exchange(rig);
}

TEST_P(BackendConformance, TakesTheSameMemoryAgain) {
  Rig rig = make_rig();
  exchange(rig);
  rig.backend().set_memory(rig.memory().guest());
  exchange(rig);
}

TEST_P(BackendConformance, MovesARingThatRuns) {
  Rig rig = make_rig({.max_queue_size = 16});
  const uint16_t queue = subject().queue();
  exchange(rig);
  rig.backend().set_vring_kick(queue, copy_of(driver(rig).kick_descriptor()));
  exchange(rig);
  rig.backend().set_vring_num(queue, 16);
  rig.backend().set_vring_addr(queue, driver(rig).ring().addresses());
  exchange(rig);
}

TEST_P(BackendConformance, EndsInTheMiddleOfThings) {
  for (int round = 0; round < 20; ++round) {
    Rig rig = make_rig({}, {.late = true});
    for (int i = 0; i < 10; ++i) driver(rig).send(subject().request(next_number()));
    if (round % 2 == 1) rig.backend().reset([] {});
  }
}

TEST_P(BackendConformance, IsCalledByManyThreads) {
  Rig rig = make_rig();
  std::atomic<bool> over = false;
  std::thread other([&] {
    for (int i = 0; i < 100 && !over; ++i) {  // each holds a descriptor until it is carried out
      rig.backend().set_vring_call(subject().queue(), copy_of(driver(rig).call_descriptor()));
      rig.backend().set_config(0, std::vector<std::byte>(1));
      std::this_thread::sleep_for(50us);
    }
  });
  for (int i = 0; i < 300; ++i) exchange(rig);
  over = true;
  other.join();
}

// ---- by ability

#define NEEDS(ability) \
  if (!GetParam().abilities.ability) GTEST_SKIP() << GetParam().name << " has no " #ability

TEST_P(BackendConformance, AnswersOnPackedRings) {
  NEEDS(packed);
  for (const bool event_idx : {false, true}) {
    Rig rig = make_rig({.packed = true, .event_idx = event_idx, .max_queue_size = 16});
    for (int i = 0; i < 100; ++i) exchange(rig);
  }
}

TEST_P(BackendConformance, GoesOnWhereAPackedRingStopped) {
  NEEDS(packed);
  Rig rig = make_rig({.packed = true, .indirect = true, .max_queue_size = 16});
  const uint16_t queue = subject().queue();
  for (unsigned sent = 1; sent < 60; ++sent) {
    exchange(rig);
    const RingPosition at = rig.stop_queue(queue);
    ASSERT_EQ(at, (RingPosition{.index = static_cast<uint16_t>(sent % 16),
                                .wrap_counter = sent / 16 % 2 == 0}));
    rig.start_queue(queue, at);
  }
}

TEST_P(BackendConformance, TellsWhatTheDeviceMadeOfAConfigWrite) {
  NEEDS(config);
  Rig rig = make_rig();
  for (unsigned i = 0; i < 20; ++i) {
    const unsigned before = rig.config_changes();
    const std::array<std::byte, 2> data{std::byte(i), std::byte(i + 1)};
    rig.write_config(6, data);
    ASSERT_TRUE(rig.wait_config_change(before));
    // What it was before may have been on its way.
    const auto arrived = [&] {
      return rig.config().at(6) == data[0] && rig.config().at(7) == data[1];
    };
    EXPECT_TRUE(arrived() || (rig.wait_config_change(before + 1) && arrived()));
    ASSERT_EQ(rig.config().size(), rig.info().config.size());
  }
}

TEST_P(BackendConformance, BringsTheLastOfManyConfigWrites) {
  NEEDS(config);
  Rig rig = make_rig();
  for (unsigned i = 0; i < 20'000; ++i) {
    const std::array<std::byte, 2> data{std::byte(i), std::byte(i >> 8)};
    rig.write_config(0, data);
  }
  const auto deadline = RigWaiter::Clock::now() + RigDriver::kPatience;
  const auto arrived = [&] {
    const auto config = rig.config();
    return config[0] == std::byte(19'999 & 0xff) && config[1] == std::byte(19'999 >> 8);
  };
  while (!arrived() && RigWaiter::Clock::now() < deadline) {
    (void)rig.wait_config_change(rig.config_changes(), 10ms);
  }
  EXPECT_TRUE(arrived());
}

TEST_P(BackendConformance, TellsANewListenerOfAnEarlierChange) {
  NEEDS(config);
  struct Listener : BackendListener {
    void config_changed(std::vector<std::byte> config) override {
      last = config.at(3);
      ++calls;
      calls.notify_all();
    }
    void needs_reset() override {}
    std::atomic<std::byte> last{};
    std::atomic<int> calls = 0;
  };
  Rig rig = make_rig();
  Listener first;
  rig.backend().set_listener(&first);
  const int before = first.calls;
  rig.backend().set_config(3, {std::byte{9}});
  first.calls.wait(before);
  Listener second;
  rig.backend().set_listener(&second);
  EXPECT_GE(second.calls, 1);
  EXPECT_EQ(second.last.load(), std::byte{9});
  rig.backend().set_listener(nullptr);
}

TEST_P(BackendConformance, SaysThatABrokenRingNeedsAReset) {
  NEEDS(needs_reset);
  Rig rig = make_rig({.max_queue_size = 16});
  const uint16_t queue = subject().queue();
  for (int round = 0; round < 10; ++round) {
    exchange(rig);
    SplitLayout* ring = driver(rig).ring().split();
    ASSERT_NE(ring, nullptr);
    ring->set_avail_idx(static_cast<uint16_t>(ring->avail_idx() + 1000));
    driver(rig).kick_anyway();
    ASSERT_TRUE(rig.wait_needs_reset());
    (void)rig.stop_queue(queue);
    rig.reset();
    EXPECT_FALSE(rig.needs_reset());
  }
}

TEST_P(BackendConformance, SaysThatARingOutsideOfMemoryNeedsAReset) {
  NEEDS(needs_reset);
  Rig rig = make_rig({.start = false});
  const uint16_t queue = subject().queue();
  for (const Verb& verb : verbs_of(rig, queue, {})) verb(rig.backend());
  exchange(rig);
  EXPECT_FALSE(rig.needs_reset());
  VringAddresses outside = driver(rig).ring().addresses();
  outside.device_area = RigMemory::kLowEnd;
  rig.backend().set_vring_addr(queue, outside);
  EXPECT_TRUE(rig.wait_needs_reset());
  rig.reset();
  exchange(rig);
}

TEST_P(BackendConformance, RunsManyQueues) {
  NEEDS(many_queues);
  Rig rig = make_rig({}, {.queues = 16});
  ASSERT_EQ(rig.info().queue_sizes.size(), 16u);
  for (int round = 0; round < 10; ++round) {
    for (uint16_t queue = 0; queue < 16; ++queue) exchange(rig, queue);
    if (round == 5) rig.restart();
    if (round == 8) rig.reset();
  }
}

}  // namespace crosvm
