#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "virtio/local_backend.h"
#include "virtio/ring_abi.h"
#include "virtio/virtio_pci_rig.h"

/// From the driver's registers to a device on a thread of its own, and back by MSI-X.
namespace crosvm {
namespace {

using test::kRunning;
using test::kVersion1;
using test::VirtioPciRig;
using namespace std::chrono_literals;

/// What the test and the device's thread share.
struct Strings {
  std::atomic<bool> hold = false;  ///< requests stay in flight
  std::atomic<int> popped = 0;
  std::atomic<uint64_t> features = 0;
};

/// Answers each request with 0x5a in its writable part. Byte 1 of its configuration can be written,
/// byte 0 cannot.
class EchoDevice : public VirtioDevice {
 public:
  EchoDevice(DeviceContext context, Strings& strings)
      : loop_(context.loop), events_(context.events), strings_(strings) {}

  uint32_t device_type() const override { return 2; }
  std::span<const uint16_t> queue_sizes() const override { return kSizes; }
  uint64_t device_features() const override { return test::kDeviceFeature; }
  std::span<const std::byte> config_space() const override { return config_; }
  void write_config(size_t offset, std::span<const std::byte> data) override {
    if (offset == 1) config_[1] = data[0];
    events_.config_changed();
  }
  void set_features(uint64_t features) override { strings_.features = features; }

  Result<void> start_queue(uint16_t index, Virtqueue queue) override {
    queues_[index] = std::make_unique<Virtqueue>(std::move(queue));
    return queues_[index]->listen(
        loop_, [this, index] { return process(index); },
        [this](const Error& error) { events_.needs_reset(error.what()); });
  }
  void stop_queue(uint16_t index, StopDone done) override {
    queues_[index]->unlisten();
    if (strings_.hold && !in_flight_.empty()) {  // until the test lets go
      loop_.after(1ms, [this, index, done = std::move(done)]() mutable {
        stop_queue(index, std::move(done));
      });
      return;
    }
    finish();
    const RingPosition position = queues_[index]->position();
    queues_[index].reset();
    done(position);
  }

 private:
  static constexpr uint16_t kSizes[] = {128, 64};
  struct Request {
    uint16_t queue;
    DescriptorChain chain;
  };

  Result<void> process(uint16_t index) {
    while (auto chain = TRY(queues_[index]->pop())) {
      in_flight_.push_back({index, std::move(*chain)});
      ++strings_.popped;
    }
    if (!strings_.hold) finish();
    return {};
  }
  void finish() {
    for (Request& request : std::exchange(in_flight_, {})) {
      CHECK(request.chain.device_writable().write(0, std::byte{0x5a}));
      queues_[request.queue]->push_used(std::move(request.chain), 1);
      queues_[request.queue]->signal_used_if_needed();
    }
  }

  EventLoop& loop_;
  DeviceEvents& events_;
  Strings& strings_;
  std::array<std::byte, 2> config_{};
  std::array<std::unique_ptr<Virtqueue>, 2> queues_;
  std::vector<Request> in_flight_;
};

class OpenedEcho : public OpenedDevice {
 public:
  explicit OpenedEcho(Strings& strings) : strings_(strings) {}
  size_t rings() const override { return 0; }
  Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) override {
    return std::make_unique<EchoDevice>(std::move(context), strings_);
  }

 private:
  Strings& strings_;
};

class VirtioPciPath : public testing::Test {
 protected:
  static constexpr uint64_t kRing = 0x1000;  // where the rig puts queue 0: descriptors,
  static constexpr uint64_t kAvail = 0x2000;
  static constexpr uint64_t kUsed = 0x3000;
  static constexpr uint64_t kBuffer = 0x8000;

  void SetUp() override {
    rig_.enable_msix();
    start();
  }
  void start() {
    avail_idx_ = 0;
    put<uint32_t>(kAvail, 0);
    put<uint32_t>(kUsed, 0);
    rig_.take_vectors();
    rig_.set_config_vector(0);
    rig_.start_driver();
    rig_.set_queue_vector(0, 1);
    ASSERT_EQ(rig_.status(), kRunning);
  }
  template <class T>
  void put(uint64_t at, T value) {
    ASSERT_TRUE(rig_.memory().write(GuestAddress{at}, value));
  }
  template <class T>
  T get(uint64_t at) {
    return *rig_.memory().read<T>(GuestAddress{at});
  }
  /// Makes `head`, a request of one writable byte, available, and notifies.
  void send(uint16_t head) {
    put<uint64_t>(kRing + 16ULL * (head % 128), kBuffer + head);
    put<uint32_t>(kRing + 16ULL * (head % 128) + 8, 1);
    put<uint32_t>(kRing + 16ULL * (head % 128) + 12, VRING_DESC_F_WRITE);
    put<uint8_t>(kBuffer + head, 0);
    put<uint16_t>(kAvail + 4 + 2ULL * (avail_idx_ % 128), head);
    put<uint16_t>(kAvail + 2, ++avail_idx_);
    rig_.write<uint16_t>(0x3000, 0);
  }
  template <class Condition>
  static bool wait_for(Condition condition) {
    for (int i = 0; i < 10000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(1ms);
    }
    return false;
  }
  bool wait_vector(uint32_t vector) {
    return wait_for([&] {
      const auto vectors = rig_.take_vectors();
      return std::ranges::find(vectors, vector) != vectors.end();
    });
  }
  void expect_it_works() {
    const auto used = get<uint16_t>(kUsed + 2);
    (void)rig_.take_vectors();  // what was in flight before a reset has interrupted as well
    send(5);
    ASSERT_TRUE(wait_for([&] { return get<uint16_t>(kUsed + 2) == used + 1; }));
    ASSERT_TRUE(wait_vector(1));
    EXPECT_EQ(get<uint8_t>(kBuffer + 5), 0x5a);
  }
  static std::unique_ptr<DeviceBackend> make_backend(Strings& strings) {
    return *LocalBackend::create("echo0", std::make_unique<OpenedEcho>(strings));
  }

  Strings strings_;
  VirtioPciRig rig_{make_backend(strings_)};
  uint16_t avail_idx_ = 0;
};

TEST_F(VirtioPciPath, ARequestGoesThroughAndInterrupts) {
  for (int i = 0; i < 3; ++i) expect_it_works();
  EXPECT_EQ(strings_.features, kVersion1 | test::kDeviceFeature) << "RING_RESET is the transport's";
}

TEST_F(VirtioPciPath, AResetWaitsForWhatIsInFlight) {
  for (int i = 0; i < 3; ++i) {
    strings_.hold = true;
    strings_.popped = 0;
    send(1);
    ASSERT_TRUE(wait_for([&] { return strings_.popped == 1; }));
    rig_.set_status(0);
    std::this_thread::sleep_for(10ms);
    EXPECT_EQ(rig_.status(), kRunning);
    strings_.hold = false;
    ASSERT_TRUE(wait_for([&] { return rig_.status() == 0; }));
    start();
    expect_it_works();
  }
}

TEST_F(VirtioPciPath, TheDeviceMayEndWhileItIsReset) {
  strings_.hold = true;
  send(1);
  ASSERT_TRUE(wait_for([&] { return strings_.popped == 1; }));
  rig_.select(1);
  rig_.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
  rig_.set_status(0);
  EXPECT_EQ(rig_.status(), kRunning);
  strings_.hold = false;  // both are done while the fixture goes
}

TEST_F(VirtioPciPath, AQueueResetWaitsForWhatIsInFlight) {
  strings_.hold = true;
  send(1);
  ASSERT_TRUE(wait_for([&] { return strings_.popped == 1; }));
  rig_.select(0);
  rig_.write<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET, 1);
  std::this_thread::sleep_for(10ms);
  EXPECT_EQ(rig_.read<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET), 1);
  strings_.hold = false;
  ASSERT_TRUE(wait_for([&] { return rig_.read<uint16_t>(VIRTIO_PCI_COMMON_Q_RESET) == 0; }));
  EXPECT_EQ(rig_.read<uint16_t>(VIRTIO_PCI_COMMON_Q_ENABLE), 0);

  avail_idx_ = 0;
  put<uint32_t>(kAvail, 0);
  put<uint32_t>(kUsed, 0);
  rig_.set_up_queue(0, 128);
  rig_.set_queue_vector(0, 1);
  rig_.enable_queue(0);
  expect_it_works();
}

TEST_F(VirtioPciPath, ABrokenRingNeedsAResetAndGetsIt) {
  send(1000);  // no such descriptor
  ASSERT_TRUE(wait_vector(0));
  EXPECT_EQ(rig_.status(), kRunning | VIRTIO_CONFIG_S_NEEDS_RESET);
  rig_.set_status(0);
  ASSERT_TRUE(wait_for([&] { return rig_.status() == 0; }));
  start();
  expect_it_works();
}

TEST_F(VirtioPciPath, ARingOutsideRamNeedsAReset) {
  rig_.set_status(0);
  ASSERT_TRUE(wait_for([&] { return rig_.status() == 0; }));
  rig_.negotiate();
  rig_.set_config_vector(0);
  rig_.set_up_queue(0, 128);
  rig_.write<uint32_t>(VIRTIO_PCI_COMMON_Q_USEDHI, 1);
  rig_.enable_queue(0);
  rig_.set_status(kRunning);
  ASSERT_TRUE(wait_vector(0));
  EXPECT_EQ(rig_.status(), kRunning | VIRTIO_CONFIG_S_NEEDS_RESET);
}

TEST_F(VirtioPciPath, TheDeviceHasTheLastWordOnItsConfiguration) {
  rig_.write<uint8_t>(0x2001, 7);
  rig_.write<uint8_t>(0x2000, 9);
  ASSERT_TRUE(wait_vector(0)) << "it disagrees";
  EXPECT_EQ(rig_.read<uint16_t>(0x2000), 0x0700);
}

}  // namespace
}  // namespace crosvm
