// A disk whose process is killed while it works, and which gets another one.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cinttypes>
#include <csignal>
#include <cstdlib>
#include <random>
#include <thread>

#include "base/format.h"
#include "base/log.h"
#include "devices/block/block_device.h"
#include "devices/block/block_test_disk.h"
#include "devices/rng/rng_device.h"
#include "jail/rig/worker_host.h"
#include "virtio/rig/sleeping_load.h"

namespace crosvm {
namespace {

using namespace block_test;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr size_t kBlock = 4096;
constexpr size_t kDepth = 16;          // requests in flight, half of them reads
constexpr uint64_t kBlocksOfSlot = 8;  // which no other slot uses
constexpr uint64_t kRequests = 4000;

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}
/// ./dev soak kill gives more.
uint64_t wanted_kills() { return number_from("CROSVM_TEST_KILLS", 12); }
uint64_t seed() { return number_from("CROSVM_TEST_SEED", 7); }

struct Way {
  std::string_view name;
  std::string_view text;
  bool packed = false;
};

/// What a block is to hold, to the last byte.
std::string content(uint64_t block, uint64_t version) {
  std::string text = format_text("block {} version {} ", block, version);
  const std::string once = text;
  while (text.size() < kBlock) text += once;
  text.resize(kBlock);
  return text;
}

/// Kills processes of a host at random moments, those that are only starting too; but not always
/// those, or on a busy machine none would ever serve.
class Killer {
 public:
  Killer(const WorkerHost& host, uint64_t seed) : host_(host), random_(seed) {
    thread_ = std::thread([this] { run(); });
  }
  ~Killer() { stop(); }
  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  uint64_t kills() const { return kills_; }

 private:
  void run() {
    while (!stopping_) {
      if (random_() % 4 == 0) await_one_that_serves();
      const auto pause = std::chrono::microseconds(random_() % 30'000);
      std::this_thread::sleep_for(pause);
      for (const pid_t pid : host_.processes()) {
        if (!stopping_ && ::kill(pid, SIGKILL) == 0) ++kills_;
      }
    }
  }

  void await_one_that_serves() const {
    while (!stopping_ && host_.process("block0") == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  const WorkerHost& host_;
  std::mt19937_64 random_;
  std::atomic<bool> stopping_ = false;
  std::atomic<uint64_t> kills_ = 0;
  std::thread thread_;
};

class BlockRestartTest : public ::testing::TestWithParam<Way> {
 protected:
  void make(size_t restarts_a_minute) {
    auto host =
        WorkerHost::create({.restart_devices = {"block"}, .restarts_a_minute = restarts_a_minute});
    CHECK(host.has_value());
    host_ = std::move(*host);
    auto backend =
        host_->run("block0", device_type<BlockFactory>(), disk_.text(std::string(GetParam().text)));
    CHECK(backend.has_value());
    host_->go();
    rig_.emplace(Rig::attach(std::move(*backend), {.packed = GetParam().packed}));
  }
  void TearDown() override {
    rig_.reset();
    host_.reset();
  }

  TestDisk disk_{2 * kDepth * kBlocksOfSlot * kBlock};
  std::unique_ptr<WorkerHost> host_;
  std::optional<Rig> rig_;
};

INSTANTIATE_TEST_SUITE_P(
    , BlockRestartTest,
    testing::Values(Way{"Uring", ""}, Way{"UringPacked", ",packed-queue", true},
                    Way{"Threads", ",async-executor=epoll"},
                    Way{"ThreadsPacked", ",packed-queue,async-executor=epoll", true},
                    Way{"Workers", ",multiple-workers"}),
    [](const auto& info) { return std::string(info.param.name); });

/// Slots with even numbers write blocks of their own, each time another content; those with odd
/// numbers read blocks that stay as they are.
class VerifyingLoad {
 public:
  VerifyingLoad(Rig& rig, uint64_t blocks) : rig_(rig), versions_(blocks), places_(kDepth) {
    for (size_t i = 0; i < kDepth; ++i) {
      RigMemory& memory = rig.memory();
      RigLoad::Slot slot;
      slot.buffers = {{memory.allocate(sizeof(Header)), sizeof(Header), false},
                      {memory.allocate(kBlock, kBlock), kBlock, i % 2 != 0},
                      {memory.allocate(1), 1, true}};
      slot.table = memory.allocate(3 * 16);
      slots_.push_back(std::move(slot));
    }
  }

  SleepingLoad::Report run(std::chrono::milliseconds patience) {
    SleepingLoad load(rig_.driver(0), slots_);
    return load.run({.requests = kRequests,
                     .patience = patience,
                     .prepare = [this](size_t slot) { prepare(slot); },
                     .judge = [this](size_t slot, uint32_t) { return judge(slot); }});
  }
  /// The version that each block was last written in.
  const std::vector<uint64_t>& versions() const { return versions_; }

 private:
  void prepare(size_t slot) {
    const GuestMemory& ram = rig_.memory().guest();
    const auto& buffers = slots_[slot].buffers;
    const uint64_t block = slot * kBlocksOfSlot + ++places_[slot] % kBlocksOfSlot;
    const bool reads = buffers[1].writable;
    const uint32_t type = reads ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
    const std::string text = reads ? std::string(kBlock, '?') : content(block, ++versions_[block]);
    CHECK(ram.write_bytes(buffers[1].address, std::as_bytes(std::span(text))));
    CHECK(ram.write(buffers[0].address, Header{type, 0, block * (kBlock / 512)}));
    CHECK(ram.write(buffers[2].address, uint8_t{0xff}));
  }
  bool judge(size_t slot) {
    const GuestMemory& ram = rig_.memory().guest();
    const auto& buffers = slots_[slot].buffers;
    if (ram.read<uint8_t>(buffers[2].address) != VIRTIO_BLK_S_OK) return false;
    if (!buffers[1].writable) return true;
    std::string text(kBlock, '\0');
    CHECK(ram.read_bytes(buffers[1].address, std::as_writable_bytes(std::span(text))));
    const uint64_t block = slot * kBlocksOfSlot + places_[slot] % kBlocksOfSlot;
    return text == content(block, 0);
  }

  Rig& rig_;
  std::vector<RigLoad::Slot> slots_;
  std::vector<uint64_t> versions_;
  std::vector<uint64_t> places_;
};

TEST_P(BlockRestartTest, EachRequestCompletesOnceWhateverIsKilled) {
  SCOPED_TRACE(format_text("CROSVM_TEST_SEED={}", seed()));
  log::Options quiet = log::options();
  quiet.filter = "off";
  ASSERT_TRUE(log::configure(quiet));
  constexpr uint64_t kBlocks = kDepth * kBlocksOfSlot;
  for (uint64_t block = 0; block < kBlocks; ++block) {
    disk_.write(block * kBlock, content(block, 0));
  }
  make(1'000'000);
  VerifyingLoad load(*rig_, kBlocks);
  Killer killer(*host_, seed());
  uint64_t completed = 0;
  do {
    const SleepingLoad::Report report = load.run(std::chrono::seconds(60));
    ASSERT_EQ(report.stall, "");
    ASSERT_EQ(report.completed, kRequests);
    ASSERT_EQ(report.failed, 0u);
    ASSERT_EQ(rig_->driver(0).ring().take_used(), std::nullopt) << "one came back twice";
    completed += report.completed;
    rig_->reset();
  } while (killer.kills() < wanted_kills());
  killer.stop();
  for (uint64_t block = 0; block < kBlocks; ++block) {
    ASSERT_EQ(disk_.read(block * kBlock, kBlock), content(block, load.versions()[block])) << block;
  }
  EXPECT_THAT(host_->deaths(), IsEmpty());
  std::printf("%" PRIu64 " requests, %" PRIu64 " kills, seed %" PRIu64 "\n", completed,
              killer.kills(), seed());
  quiet.filter = "info";
  ASSERT_TRUE(log::configure(quiet));
}

TEST_P(BlockRestartTest, AfterThreeDeathsAMinuteItIsGivenUp) {
  make(3);
  pid_t former = 0;
  for (int time = 0; time < 4; ++time) {
    const pid_t present = host_->wait_process("block0", former);
    ASSERT_GT(present, 0);
    EXPECT_EQ(write_at(rig_->driver(0), 1, std::string(512, 'x')), VIRTIO_BLK_S_OK);
    ::kill(present, SIGKILL);
    former = present;
  }
  ASSERT_TRUE(host_->wait_death());
  EXPECT_THAT(host_->deaths(), SizeIs(1));
  EXPECT_THAT(host_->deaths()[0],
              HasSubstr("killed by SIGKILL, after it was started anew 3 times"));
  EXPECT_TRUE(rig_->wait_needs_reset());
}

TEST_P(BlockRestartTest, ARequestOfAStoppedProcessIsDoneByTheNext) {
  make(3);
  const pid_t former = host_->wait_process("block0", 0);
  ASSERT_GT(former, 0);
  ::kill(former, SIGSTOP);
  const RigToken token = rig_->driver(0).send(
      {header(VIRTIO_BLK_T_OUT, 3), readable(std::string(512, 'n')), writable(1)});
  EXPECT_FALSE(rig_->driver(0).wait_used(token, std::chrono::milliseconds(30)).arrived);
  ::kill(former, SIGKILL);
  EXPECT_EQ(rig_->driver(0).wait_used(token).last_byte(), VIRTIO_BLK_S_OK);
  EXPECT_EQ(disk_.read(3 * 512, 1), "n");
}

TEST(RngRestartTest, ARequestIsFilledByTheNextProcess) {
  auto host = WorkerHost::create({.restart_devices = {"rng"}, .restarts_a_minute = 100});
  ASSERT_TRUE(host) << host.error().what();
  auto backend = (*host)->run("rng", device_type<RngFactory>(), "");
  ASSERT_TRUE(backend) << backend.error().what();
  (*host)->go();
  Rig rig = Rig::attach(std::move(*backend));
  pid_t former = 0;
  for (int round = 0; round < 10; ++round) {
    const pid_t present = (*host)->wait_process("rng", former);
    ASSERT_GT(present, 0);
    rig.driver(0).send({writable(200'000)});
    ::kill(present, SIGKILL);
    const RigUsed used = rig.driver(0).wait_used();
    ASSERT_EQ(used.written, 200'000u);
    former = present;
  }
  EXPECT_THAT((*host)->deaths(), IsEmpty());
}

TEST(RestartTest, OneThatMustNotBeRestartedIsNot) {
  TestDisk disk(1 << 20);
  auto host = WorkerHost::create({.restart_devices = {"rng"}});
  ASSERT_TRUE(host) << host.error().what();
  auto backend = (*host)->run("block0", device_type<BlockFactory>(), disk.text());
  ASSERT_TRUE(backend) << backend.error().what();
  (*host)->go();
  const pid_t present = (*host)->wait_process("block0", 0);
  ASSERT_GT(present, 0);
  ::kill(present, SIGKILL);
  ASSERT_TRUE((*host)->wait_death());
  EXPECT_EQ((*host)->deaths()[0], "block0: was killed by SIGKILL");
}

}  // namespace
}  // namespace crosvm
