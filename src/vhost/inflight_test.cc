#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>

#include "vhost/inflight_region.h"
#include "vhost/vhost_test_frontend.h"
#include "virtio/rig/queue_bench.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

constexpr uint64_t kRing = uint64_t{1} << VIRTIO_F_VERSION_1 |
                           uint64_t{1} << VIRTIO_RING_F_EVENT_IDX |
                           uint64_t{1} << VIRTIO_RING_F_INDIRECT_DESC;
constexpr uint64_t kPacked = uint64_t{1} << VIRTIO_F_RING_PACKED;

EchoOptions options(EchoMode mode, EchoControl* control = nullptr) {
  return {.mode = mode, .queue_sizes = {16, 16}, .control = control};
}

/// Our view of the memory that the front-end keeps.
class Mapped {
 public:
  Mapped(const Fd& file, size_t bytes) : bytes_(bytes) {
    at_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    CHECK(at_ != MAP_FAILED);
  }
  ~Mapped() { ::munmap(at_, bytes_); }
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(at_), bytes_}; }

 private:
  void* at_;
  size_t bytes_;
};

struct Region {
  VhostUserInflight description;
  Fd file;
};

Region get_region(VhostTestFrontend& frontend) {
  frontend.send(
      VHOST_USER_GET_INFLIGHT_FD,
      VhostUserInflight{
          .mmap_size = 0, .mmap_offset = 0, .num_queues = 2, .queue_size = 16, .padding = 0});
  auto answer = frontend.receive();
  CHECK(answer && answer->fds.size() == 1);
  return {*answer->payload_as<VhostUserInflight>(), std::move(answer->fds[0])};
}

bool set_region(VhostTestFrontend& frontend, const Region& region) {
  return frontend.ack(VHOST_USER_SET_INFLIGHT_FD, region.description,
                      VhostTestFrontend::copy(region.file));
}

class InflightTest : public testing::TestWithParam<bool> {
 protected:
  bool packed() const { return GetParam(); }
  uint32_t base() const { return packed() ? 0x80008000 : 0; }
  void negotiate(VhostTestFrontend& frontend) const {
    frontend.negotiate(kRing | (packed() ? kPacked : 0));
    frontend.send(frontend.memory_table());
  }
};

INSTANTIATE_TEST_SUITE_P(Rings, InflightTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Packed" : "Split"; });

TEST_P(InflightTest, AnotherServerAnswersWhatTheFirstLeft) {
  EchoControl first_control;
  VhostTestFrontend first(options(EchoMode::kHeld, &first_control));
  negotiate(first);
  const Region region = get_region(first);
  ASSERT_TRUE(set_region(first, region));
  RigDriver& driver = first.add_driver(packed());
  first.start_ring(0, base());

  std::vector<RigToken> tokens;
  for (int i = 0; i < 5; ++i) {
    tokens.push_back(
        driver.send({readable(std::string(1, static_cast<char>('a' + i))), writable(1)}));
  }
  first.turn();
  EXPECT_FALSE(driver.try_used());
  // The memory as it was when the first one was killed.
  const Mapped mapped(region.file, region.description.mmap_size);
  const std::vector<std::byte> then(mapped.bytes().begin(), mapped.bytes().end());

  Region after;
  after.description = region.description;
  after.file = Fd(::memfd_create("after", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(after.file.get(), static_cast<off_t>(then.size())), 0);
  ASSERT_EQ(::pwrite(after.file.get(), then.data(), then.size(), 0),
            static_cast<ssize_t>(then.size()));

  // A second server on the same ring and memory; the first never answers.
  VhostTestFrontend second(options(EchoMode::kAtOnce));
  second.negotiate(kRing | (packed() ? kPacked : 0));
  second.send(first.memory_table());
  ASSERT_TRUE(set_region(second, after));
  const VhostUserVringAddr at = first.addresses(0);
  second.send(VHOST_USER_SET_VRING_NUM, VhostUserVringState{.index = 0, .num = 16});
  second.send(VHOST_USER_SET_VRING_ADDR, at);
  second.send(VHOST_USER_SET_VRING_BASE, VhostUserVringState{.index = 0, .num = base()});
  second.send(VHOST_USER_SET_VRING_CALL, uint64_t{0},
              VhostTestFrontend::copy(driver.call_descriptor()));
  second.send(VHOST_USER_SET_VRING_KICK, uint64_t{0},
              VhostTestFrontend::copy(driver.kick_descriptor()));
  second.send(VHOST_USER_SET_VRING_ENABLE, VhostUserVringState{.index = 0, .num = 1});
  second.turn(40);
  for (int i = 0; i < 5; ++i) {
    const auto used = driver.try_used();  // oldest first, as they were taken
    ASSERT_TRUE(used) << i;
    EXPECT_EQ(used->token, tokens[static_cast<size_t>(i)]);
    EXPECT_EQ(used->byte(0), 'a' + i);
  }
  EXPECT_FALSE(driver.try_used());
  // And goes on behind them.
  driver.send({readable("z"), writable(1)});
  driver.kick_anyway();
  second.turn(40);
  const auto used = driver.try_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->byte(0), 'z');
  first_control.release();
}

TEST_P(InflightTest, NothingIsLeftAfterAnOrderlyStop) {
  VhostTestFrontend frontend(options(EchoMode::kShuffled));
  negotiate(frontend);
  const Region region = get_region(frontend);
  ASSERT_TRUE(set_region(frontend, region));
  RigDriver& driver = frontend.add_driver(packed());
  frontend.start_ring(0, base());
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 1 + round % 8; ++i) driver.send({readable("x"), writable(1)});
    while (driver.outstanding() > 0) ASSERT_TRUE(driver.wait_used().arrived);
    if (round % 10 != 9) continue;
    frontend.send(VHOST_USER_GET_VRING_BASE, VhostUserVringState{.index = 0, .num = 0});
    const auto answer = frontend.receive();
    ASSERT_TRUE(answer);
    const auto at = answer->payload_as<VhostUserVringState>();
    ASSERT_TRUE(at);
    frontend.start_ring(0, at->num);
  }
  const Mapped mapped(region.file, region.description.mmap_size);
  const size_t size = packed() ? 32 : 16;
  for (size_t slot = 0; slot < 16; ++slot) {
    EXPECT_EQ(mapped.bytes()[size + size * slot], std::byte{0}) << slot;
  }
  EXPECT_EQ(mapped.bytes()[8], std::byte{1});  // its version
  EXPECT_TRUE(frontend.ack(vhost_user_message(VHOST_USER_RESET_DEVICE)));
  EXPECT_EQ(mapped.bytes()[8], std::byte{0});
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_STATUS), 0u);
}

TEST_P(InflightTest, RequestsAreSuspendedAndGoOn) {
  EchoControl control;
  VhostTestFrontend frontend(options(EchoMode::kHeld, &control));
  negotiate(frontend);
  const Region region = get_region(frontend);
  ASSERT_TRUE(set_region(frontend, region));
  RigDriver& driver = frontend.add_driver(packed());
  frontend.start_ring(0, base());
  std::vector<RigToken> tokens;
  for (int i = 0; i < 5; ++i) {
    tokens.push_back(
        driver.send({readable(std::string(1, static_cast<char>('a' + i))), writable(1)}));
  }
  frontend.turn();
  const Mapped mapped(region.file, region.description.mmap_size);
  for (int stops = 0; stops < 3; ++stops) {
    frontend.send(VHOST_USER_GET_VRING_BASE, VhostUserVringState{.index = 0, .num = 0});
    const auto answer = frontend.receive();
    ASSERT_TRUE(answer) << "it does not wait for what is in flight";
    const auto at = answer->payload_as<VhostUserVringState>();
    ASSERT_TRUE(at);
    EXPECT_EQ(at->num, packed() ? 0x80008005 : 5) << "five available, none used";
    size_t in_flight = 0;
    const size_t size = packed() ? 32 : 16;
    for (size_t slot = 0; slot < 16; ++slot) {
      in_flight += std::to_integer<size_t>(mapped.bytes()[size + size * slot]);
    }
    EXPECT_EQ(in_flight, 5u);
    EXPECT_FALSE(driver.try_used());
    frontend.start_ring(0, at->num);
  }
  control.release();
  driver.send({readable("z"), writable(1)});
  driver.kick_anyway();
  std::string answered;
  for (int i = 0; i < 6; ++i) answered += static_cast<char>(driver.wait_used().byte(0));
  std::ranges::sort(answered);
  EXPECT_EQ(answered, "abcdez") << "each of them once";
}

TEST_P(InflightTest, AStopWaitsUnlessRequestsMayStayInFlight) {
  // Not negotiated, and no memory to remember them in.
  for (const bool remembered : {true, false}) {
    EchoControl control;
    VhostTestFrontend frontend(options(EchoMode::kHeld, &control));
    negotiate(frontend);
    if (remembered) {
      ASSERT_TRUE(set_region(frontend, get_region(frontend)));
      frontend.send(VHOST_USER_SET_PROTOCOL_FEATURES,
                    vhost_user_bit(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
                        vhost_user_bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD));
    }
    RigDriver& driver = frontend.add_driver(packed());
    frontend.start_ring(0, base());
    driver.send({readable("a"), writable(1)});
    frontend.turn();
    frontend.send(VHOST_USER_GET_VRING_BASE, VhostUserVringState{.index = 0, .num = 0});
    EXPECT_FALSE(frontend.receive());
    control.release();
    const auto answer = frontend.receive();
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->payload_as<VhostUserVringState>()->num, packed() ? 0x80018001 : 1);
    EXPECT_TRUE(driver.try_used());
  }
}

TEST(InflightRegion, RequestsStayInFlightOnlyWithIt) {
  VhostTestFrontend frontend(options(EchoMode::kAtOnce));
  frontend.negotiate(kRing);
  const uint64_t wanted = vhost_user_bit(VHOST_USER_PROTOCOL_F_REPLY_ACK) |
                          vhost_user_bit(VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT);
  EXPECT_FALSE(frontend.ack(VHOST_USER_SET_PROTOCOL_FEATURES, wanted));
  EXPECT_TRUE(frontend.ack(VHOST_USER_SET_PROTOCOL_FEATURES,
                           wanted | vhost_user_bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)));
}

TEST_P(InflightTest, WhateverTheMemoryHolds) {
  std::mt19937 random(7);
  EchoControl control;
  VhostTestFrontend frontend(options(EchoMode::kAtOnce));
  frontend.add_driver(packed());
  for (int round = 0; round < 300; ++round) {
    negotiate(frontend);
    const Region region = get_region(frontend);
    const Mapped mapped(region.file, region.description.mmap_size);
    // Small numbers everywhere, so that they are often indices.
    for (std::byte& each : mapped.bytes()) {
      each = random() % 3 == 0 ? static_cast<std::byte>(random() % 17) : std::byte{0};
    }
    mapped.bytes()[8] = std::byte{1};
    mapped.bytes()[9] = std::byte{0};
    mapped.bytes()[10] = std::byte{16};
    mapped.bytes()[11] = std::byte{0};
    ASSERT_TRUE(set_region(frontend, region));
    frontend.driver(0).restart({});
    frontend.start_ring(0, base());
    for (std::byte& each : mapped.bytes()) each = static_cast<std::byte>(random());
    frontend.driver(0).send({readable("x"), writable(1)});
    frontend.turn();
    ASSERT_TRUE(frontend.gone().size() == static_cast<size_t>(round));
    frontend.disconnect();
    frontend.turn();
    frontend.connect();
  }
}

/// A log that looks, between any two of its steps, at what another process would find if this one
/// died there.
class Witness : public InflightLog {
 public:
  Witness(std::shared_ptr<InflightLog> log, std::function<void(RingPosition, int)> died)
      : log_(std::move(log)), died_(std::move(died)) {}

  Result<Standing> open(const Ring& ring) override {
    used_ = ring.base;
    return log_->open(ring);
  }
  uint16_t take(uint16_t head, std::span<const RingDescriptor> elements) override {
    died_(used_, out_);
    const uint16_t slot = log_->take(head, elements);
    died_(used_, ++out_);
    return slot;
  }
  void undo_take(uint16_t slot) override {
    log_->undo_take(slot);
    died_(used_, --out_);
  }
  void begin_used(uint16_t slot, RingPosition used) override {
    died_(used_, out_);
    log_->begin_used(slot, used);
    died_(used_, out_);
    next_used_ = used;
  }
  void finish_used(uint16_t slot) override {
    used_ = next_used_;
    died_(used_, --out_);  // the driver can see it already
    log_->finish_used(slot);
    died_(used_, out_);
  }

 private:
  std::shared_ptr<InflightLog> log_;
  std::function<void(RingPosition, int)> died_;
  RingPosition used_;
  RingPosition next_used_;
  int out_ = 0;
};

TEST_P(InflightTest, WhereverAProcessDiesTheNextKnowsWhatIsInFlight) {
  QueueBench bench({.size = 16, .packed = packed(), .event_idx = true, .indirect = false});
  VhostUserInflight description{
      .mmap_size = 0, .mmap_offset = 0, .num_queues = 2, .queue_size = 16, .padding = 0};
  const auto make = [&] { return VhostTestFrontend::must(InflightRegion::create(description)); };
  const Fd file = make();
  const Fd copy = make();
  const auto queue_of = [&](const Fd& of) {
    return VhostTestFrontend::must(
        InflightRegion::queue(VhostTestFrontend::must(InflightRegion::map(description, of)), 1));
  };
  const Mapped here(file, description.mmap_size);
  const Mapped there(copy, description.mmap_size);
  VirtqueueSetup setup = bench.setup();
  InflightLog::Ring ring{.packed = packed(),
                         .size = 16,
                         .base = {},
                         .used_idx = 0,
                         .descriptor_area = VhostTestFrontend::must(bench.memory().guest().slice(
                             setup.addresses.descriptor_area, 16 * 16))};
  int deaths = 0;
  setup.inflight = std::make_shared<Witness>(queue_of(file), [&](RingPosition used, int out) {
    std::ranges::copy(here.bytes(), there.bytes().begin());
    if (!packed()) ring.used_idx = bench.driver().ring().split()->used_idx();
    const auto standing = queue_of(copy)->open(ring);
    ASSERT_TRUE(standing) << standing.error().what();
    EXPECT_EQ(standing->requests.size(), static_cast<size_t>(out));
    EXPECT_EQ(standing->used, used);
    ++deaths;
  });
  auto queue = VhostTestFrontend::must(Virtqueue::create(bench.memory().guest(), std::move(setup)));

  std::mt19937 random(11);
  std::vector<DescriptorChain> held;
  for (int step = 0; step < 2000; ++step) {
    RigDriver& driver = bench.driver();
    if (random() % 2 == 0 && driver.outstanding() < 5) {
      std::vector<RigBuffer> buffers{readable("x")};
      for (unsigned more = random() % 3; more > 0; --more) buffers.push_back(writable(1));
      driver.send(buffers);
    } else if (random() % 2 == 0) {
      if (auto chain = VhostTestFrontend::must(queue.pop())) {
        if (random() % 8 == 0) {
          queue.undo_pop(std::move(*chain));
        } else {
          held.push_back(std::move(*chain));
        }
      }
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      queue.push_used(std::move(held.back()), 0);
      held.pop_back();
      EXPECT_TRUE(driver.try_used());
    }
  }
  EXPECT_GT(deaths, 1000);
}

TEST(InflightRegion, RefusesWhatCannotBe) {
  VhostTestFrontend frontend(options(EchoMode::kAtOnce));
  frontend.negotiate(kRing);
  const Region region = get_region(frontend);
  EXPECT_GE(region.description.mmap_size, 2 * InflightRegion::queue_bytes(true, 16));
  const auto refused = [&](auto change) {
    Region other{region.description, VhostTestFrontend::copy(region.file)};
    change(other);
    return !set_region(frontend, other);
  };
  EXPECT_TRUE(refused([](Region& r) { r.description.mmap_size = uint64_t{1} << 30; }));
  EXPECT_TRUE(refused([](Region& r) { r.description.mmap_size = UINT64_MAX; }));
  EXPECT_TRUE(refused([](Region& r) { r.description.mmap_size = 16; }));
  EXPECT_TRUE(refused([](Region& r) { r.description.mmap_offset = 1; }));
  EXPECT_TRUE(refused([](Region& r) { r.description.mmap_offset = UINT64_MAX - 4095; }));
  EXPECT_TRUE(refused([](Region& r) { r.description.num_queues = 0; }));
  EXPECT_TRUE(refused([](Region& r) { r.description.queue_size = 0; }));
  EXPECT_TRUE(refused([](Region& r) { r.description.queue_size = 65535; }));
  EXPECT_TRUE(refused([](Region& r) { r.file = VhostTestFrontend::must(make_eventfd()); }));
  EXPECT_FALSE(refused([](Region&) {}));
  for (const uint16_t queues : {uint16_t{0}, uint16_t{3}, uint16_t{65535}}) {
    frontend.send(VHOST_USER_GET_INFLIGHT_FD, VhostUserInflight{.mmap_size = 0,
                                                                .mmap_offset = 0,
                                                                .num_queues = queues,
                                                                .queue_size = 16,
                                                                .padding = 0});
    const auto answer = frontend.receive();
    ASSERT_TRUE(answer);
    EXPECT_TRUE(answer->payload.empty() && answer->fds.empty());
  }
}

}  // namespace
}  // namespace crosvm
