#include "virtio/device_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "virtio/rig/queue_bench.h"

namespace crosvm {
namespace {

/// A device whose queues stop when the test says so.
class ScriptedDevice : public VirtioDevice {
 public:
  explicit ScriptedDevice(DeviceEvents& to) : events(to) {}

  uint32_t device_type() const override { return 4; }
  std::span<const uint16_t> queue_sizes() const override { return sizes; }
  uint64_t device_features() const override { return uint64_t{1} << VIRTIO_F_RING_PACKED | 1; }
  std::span<const std::byte> config_space() const override { return config; }
  void write_config(size_t offset, std::span<const std::byte> data) override {
    std::ranges::copy(data, config.begin() + static_cast<ptrdiff_t>(offset));
  }
  void set_features(uint64_t bits) override {
    EXPECT_FALSE(queues[0] || queues[1]) << "features change under a running queue";
    features.push_back(bits);
  }
  Result<void> start_queue(uint16_t index, Virtqueue queue) override {
    EXPECT_FALSE(queues[index]);
    EXPECT_FALSE(stopping[index]) << "started while it was stopping";
    ++starts;
    if (refuse) return fail(Error::invalid("this queue does not suit me"));
    queues[index].emplace(std::move(queue));
    return {};
  }
  void stop_queue(uint16_t index, StopDone done) override {
    EXPECT_TRUE(queues[index]);
    EXPECT_FALSE(stopping[index]);
    stopping[index] = std::move(done);
    if (stops_at_once) finish_stop(index);
  }
  void reset() override {
    EXPECT_FALSE(queues[0] || queues[1]);
    ++resets;
  }
  void finish_stop(uint16_t index) {
    const RingPosition position = queues[index]->position();
    queues[index].reset();
    std::exchange(stopping[index], nullptr)(position);
  }

  DeviceEvents& events;
  std::array<uint16_t, 2> sizes{16, 16};
  std::array<std::byte, 8> config{};
  std::array<std::optional<Virtqueue>, 2> queues;
  std::array<StopDone, 2> stopping;
  std::vector<uint64_t> features;
  bool stops_at_once = true;
  bool refuse = false;
  int starts = 0;
  int resets = 0;
};

class DeviceHostTest : public testing::Test {
 protected:
  void SetUp() override {
    DeviceHost::Events events{
        .config_changed = [this](std::vector<std::byte> config) { configs_.push_back(config); },
        .needs_reset = [this] { ++needs_reset_; }};
    auto host = DeviceHost::create("echo0", std::move(events), [this](DeviceEvents& to) {
      auto device = std::make_unique<ScriptedDevice>(to);
      device_ = device.get();
      return Result<std::unique_ptr<VirtioDevice>>(std::move(device));
    });
    ASSERT_TRUE(host.has_value());
    host_ = std::move(*host);
  }

  Fd copy(const Fd& fd) { return std::move(*fd.duplicate()); }
  void set_ring(uint16_t index, RingPosition base = {}) {
    host_->set_vring_num(index, 16);
    host_->set_vring_addr(index, bench_.driver().ring().addresses());
    host_->set_vring_base(index, base);
    host_->set_vring_kick(index, copy(bench_.driver().kick_descriptor()));
    host_->set_vring_call(index, copy(bench_.driver().call_descriptor()));
    host_->set_vring_enable(index, true);
  }
  void start() {
    host_->set_memory(bench_.memory().guest());
    host_->set_features(bench_.features());
    set_ring(0);
  }
  bool runs(uint16_t index = 0) const { return device_->queues[index].has_value(); }

  QueueBench bench_{{}};
  std::vector<std::vector<std::byte>> configs_;
  int needs_reset_ = 0;
  ScriptedDevice* device_ = nullptr;
  std::unique_ptr<DeviceHost> host_;
};

TEST_F(DeviceHostTest, OffersWhatTheDeviceAndItsRingsCan) {
  const DeviceInfo info = host_->info();
  EXPECT_EQ(info.name, "echo0");
  EXPECT_EQ(info.device_type, 4u);
  EXPECT_EQ(info.features,
            1u | uint64_t{1} << 28 | uint64_t{1} << 29 | uint64_t{1} << 32 | uint64_t{1} << 34);
  EXPECT_THAT(info.queue_sizes, testing::ElementsAre(16, 16));
  EXPECT_EQ(info.config.size(), 8u);
}

TEST_F(DeviceHostTest, RunsARingWhateverTheOrderOfWhatItNeeds) {
  std::vector<std::function<void()>> verbs{
      [&] { host_->set_memory(bench_.memory().guest()); },
      [&] { host_->set_features(bench_.features()); },
      [&] { host_->set_vring_num(0, 16); },
      [&] { host_->set_vring_addr(0, bench_.driver().ring().addresses()); },
      [&] { host_->set_vring_kick(0, copy(bench_.driver().kick_descriptor())); },
      [&] { host_->set_vring_enable(0, true); }};
  for (size_t last = 0; last < verbs.size(); ++last) {
    for (size_t i = 0; i < verbs.size(); ++i) {
      if (i != last) verbs[i]();
      EXPECT_FALSE(runs()) << last;
    }
    verbs[last]();
    EXPECT_TRUE(runs()) << last;
    EXPECT_FALSE(runs(1));
    bool done = false;
    host_->reset([&] { done = true; });
    EXPECT_TRUE(done);
    EXPECT_FALSE(runs());
  }
}

TEST_F(DeviceHostTest, StopsAndGoesOnAtThePosition) {
  start();
  ASSERT_TRUE(runs());
  bench_.driver().send({readable("x")});
  auto chain = device_->queues[0]->pop();
  ASSERT_TRUE(chain && *chain);
  device_->queues[0]->push_used(std::move(**chain), 0);
  std::optional<RingPosition> at;
  host_->get_vring_base(0, [&](RingPosition position) { at = position; });
  ASSERT_TRUE(at.has_value());
  EXPECT_EQ(at->index, 1u);
  EXPECT_FALSE(runs());
  host_->set_vring_enable(0, true);
  EXPECT_FALSE(runs()) << "its kick descriptor is gone";
  host_->set_vring_kick(0, copy(bench_.driver().kick_descriptor()));
  ASSERT_TRUE(runs());
  EXPECT_EQ(device_->queues[0]->position().index, 1u);
}

TEST_F(DeviceHostTest, DisablingStopsAndEnablingResumes) {
  start();
  host_->set_vring_enable(0, false);
  EXPECT_FALSE(runs());
  host_->set_vring_enable(0, true);
  EXPECT_TRUE(runs());
  EXPECT_EQ(device_->starts, 2);
  host_->set_vring_enable(0, true);
  EXPECT_EQ(device_->starts, 2) << "nothing changed";
}

TEST_F(DeviceHostTest, WaitsForTheStopBeforeItStartsAgain) {
  device_->stops_at_once = false;
  start();
  host_->set_vring_enable(0, false);
  host_->set_vring_enable(0, true);
  host_->set_vring_enable(0, false);
  host_->set_vring_enable(0, true);
  EXPECT_EQ(device_->starts, 1);
  device_->finish_stop(0);
  EXPECT_EQ(device_->starts, 2);
  EXPECT_TRUE(runs());
}

TEST_F(DeviceHostTest, AnswersWhoAsksWhileItStops) {
  device_->stops_at_once = false;
  start();
  int answers = 0;
  auto done = [&](RingPosition) { ++answers; };
  host_->get_vring_base(0, done);
  host_->get_vring_base(0, done);
  host_->set_vring_kick(0, copy(bench_.driver().kick_descriptor()));
  EXPECT_EQ(answers, 0);
  device_->finish_stop(0);
  EXPECT_EQ(answers, 2);
  EXPECT_TRUE(runs()) << "the kick came after";
}

TEST_F(DeviceHostTest, RestartsARingThatChangesUnderWay) {
  start();
  host_->set_vring_call(0, copy(bench_.driver().call_descriptor()));
  EXPECT_EQ(device_->starts, 2);
  VringAddresses other = bench_.driver().ring().addresses();
  other.descriptor_area = bench_.memory().allocate(4096);
  host_->set_vring_addr(0, other);
  EXPECT_EQ(device_->starts, 3);
  host_->set_vring_addr(0, other);
  EXPECT_EQ(device_->starts, 3);
}

TEST_F(DeviceHostTest, ChangesFeaturesAndMemoryOnlyWithAllRingsStopped) {
  device_->stops_at_once = false;
  start();
  set_ring(1);
  EXPECT_EQ(device_->starts, 2);
  QueueBench other({});
  bool unused = false;
  host_->set_memory(other.memory().guest(), [&] { unused = true; });
  host_->set_features(bench_.features() | 1);
  device_->finish_stop(0);
  EXPECT_FALSE(unused);
  EXPECT_EQ(device_->starts, 2);
  device_->finish_stop(1);
  EXPECT_TRUE(unused);
  EXPECT_EQ(device_->starts, 4);
  EXPECT_THAT(device_->features, testing::ElementsAre(bench_.features(), bench_.features() | 1));
}

TEST_F(DeviceHostTest, TakesNoFeaturesThatWereNotOffered) {
  host_->set_features(uint64_t{1} << 60 | 1);
  EXPECT_THAT(device_->features, testing::ElementsAre(1u));
}

TEST_F(DeviceHostTest, ResetWaitsForAllThatIsInFlight) {
  device_->stops_at_once = false;
  start();
  set_ring(1);
  int done = 0;
  host_->reset([&] { ++done; });
  host_->reset([&] { ++done; });
  // What comes after the reset counts after it.
  host_->set_features(bench_.features());
  set_ring(0, {.index = 7});
  device_->finish_stop(1);
  EXPECT_EQ(done, 0);
  EXPECT_EQ(device_->resets, 0);
  device_->finish_stop(0);
  EXPECT_EQ(done, 2);
  EXPECT_EQ(device_->resets, 1);
  ASSERT_TRUE(runs());
  EXPECT_EQ(device_->queues[0]->position().index, 7u);
  EXPECT_FALSE(runs(1));
}

TEST_F(DeviceHostTest, ForgetsPositionsInAReset) {
  start();
  host_->set_vring_base(0, {.index = 5});
  host_->reset([] {});
  std::optional<RingPosition> at;
  host_->get_vring_base(0, [&](RingPosition position) { at = position; });
  EXPECT_EQ(at, RingPosition{});
}

TEST_F(DeviceHostTest, TellsOnceThatTheDeviceNeedsAResetAndStartsNothingBefore) {
  start();
  device_->events.needs_reset("queue 0: broken");
  device_->events.needs_reset("queue 1: broken");
  EXPECT_EQ(needs_reset_, 1);
  EXPECT_TRUE(runs()) << "it may have requests in flight";
  host_->set_vring_enable(0, false);
  host_->set_vring_enable(0, true);
  set_ring(1);
  EXPECT_FALSE(runs() || runs(1));
  host_->reset([] {});
  start();
  EXPECT_TRUE(runs());
  device_->events.needs_reset("again");
  EXPECT_EQ(needs_reset_, 2);
}

TEST_F(DeviceHostTest, NeedsAResetWhenARingCannotBe) {
  host_->set_memory(bench_.memory().guest());
  host_->set_features(bench_.features());
  set_ring(0);
  ASSERT_TRUE(runs());
  VringAddresses outside = bench_.driver().ring().addresses();
  outside.device_area = RigMemory::kLowEnd;
  host_->set_vring_addr(0, outside);
  EXPECT_FALSE(runs());
  EXPECT_EQ(needs_reset_, 1);
}

TEST_F(DeviceHostTest, NeedsAResetWhenTheDeviceRefusesARing) {
  device_->refuse = true;
  start();
  EXPECT_EQ(needs_reset_, 1);
  EXPECT_EQ(device_->starts, 1);
  device_->refuse = false;
  host_->reset([] {});
  start();
  EXPECT_TRUE(runs());
}

TEST_F(DeviceHostTest, IgnoresQueuesAndSizesThatAreNot) {
  start();
  set_ring(2);
  set_ring(65535);
  bool answered = false;
  host_->get_vring_base(2, [&](RingPosition) { answered = true; });
  EXPECT_TRUE(answered);
  host_->set_vring_num(1, 0);
  host_->set_vring_num(1, 17);
  host_->set_vring_addr(1, bench_.driver().ring().addresses());
  host_->set_vring_kick(1, copy(bench_.driver().kick_descriptor()));
  host_->set_vring_enable(1, true);
  EXPECT_FALSE(runs(1));
  EXPECT_TRUE(runs());
  EXPECT_EQ(needs_reset_, 0);
}

TEST_F(DeviceHostTest, WritesTheConfigurationInItsBounds) {
  const std::array<std::byte, 4> data{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  host_->set_config(4, data);
  EXPECT_EQ(device_->config[7], std::byte{4});
  ASSERT_EQ(configs_.size(), 1u) << "each write is answered, though the device said nothing";
  EXPECT_EQ(configs_[0][7], std::byte{4});
  const auto before = device_->config;
  for (const size_t offset : {size_t{5}, size_t{8}, size_t{9}, SIZE_MAX - 1}) {
    host_->set_config(offset, data);
  }
  host_->set_config(0, {});
  EXPECT_EQ(device_->config, before);
  device_->events.config_changed();
  ASSERT_EQ(configs_.size(), 2u);
  EXPECT_EQ(configs_[1][4], std::byte{1});
}

TEST_F(DeviceHostTest, MayGoWhileAQueueStops) {
  device_->stops_at_once = false;
  start();
  host_->get_vring_base(0, [](RingPosition) { FAIL(); });
  StopDone late = std::move(device_->stopping[0]);
  host_.reset();
  late({});
}

TEST(DeviceHost, PassesOnWhyThereIsNoDevice) {
  const auto host = DeviceHost::create("echo0", {}, [](DeviceEvents&) {
    return Result<std::unique_ptr<VirtioDevice>>(fail(Error::invalid("no such luck")));
  });
  ASSERT_FALSE(host.has_value());
  EXPECT_EQ(host.error().what(), "no such luck");
}

}  // namespace
}  // namespace crosvm
