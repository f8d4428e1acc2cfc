// Processes that work on disk images are killed at random moments. Nothing that was flushed is
// lost, no image is damaged, and each works on.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <thread>

#include "base/format.h"
#include "base/io_uring.h"
#include "disk/tools/check_image.h"
#include "disk/tools/tool_image.h"
#include "kill_child.h"
#include "kill_image.h"

namespace crosvm {
namespace {

using namespace test;
using Kind = DiskRequest::Kind;
using EventKind = DiskEvent::Kind;
using std::chrono::microseconds;

constexpr uint64_t kKillsOfImage = 10;
constexpr uint64_t kNumbersOfChild = 1 << 26;
constexpr uint64_t kWorkedOn = 200;  // sectors, after each kill
constexpr auto kPatience = std::chrono::seconds(30);

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct Counts {
  uint64_t kills = 0;
  uint64_t opening = 0;   // killed before the disk was open
  uint64_t flushing = 0;  // in the middle of a flush
  uint64_t resizing = 0;
  uint64_t requests = 0;
  uint64_t flushes = 0;  // that have ended
  uint64_t leaking = 0;  // left clusters that nothing used
};

/// One image, and the processes that come and go on it.
class KilledDisk {
 public:
  KilledDisk(uint64_t seed, bool uring, Counts& counts)
      : random_(seed), uring_(uring), counts_(counts), image_(seed) {}

  void run(uint64_t kills) {
    for (uint64_t i = 0; i < kills && !testing::Test::HasFailure(); ++i) {
      SCOPED_TRACE(format_text("kill {} of {}", i, image_.text()));
      kill_one();
      if (!testing::Test::HasFailure()) repair();
      if (!testing::Test::HasFailure()) work_on();
    }
    if (testing::Test::HasFailure()) return;
    image_.expect_sound(false);
    image_.expect_raw_data();
    image_.expect_snapshot();
  }

 private:
  struct Request final : DiskRequest {
    void disk_done(int error) override { result = error; }
    int result = -1;
  };
  uint64_t below(uint64_t limit) { return random_() % limit; }

  void kill_one() {
    auto log = KillLog::create();
    ASSERT_TRUE(log) << log.error().what();
    const auto pid = start_kill_child({.path = image_.path(),
                                       .is_raw = image_.is_raw(),
                                       .uring = uring_,
                                       .direct = image_.is_direct(),
                                       .seed = random_(),
                                       .first_number = image_.take_numbers(kNumbersOfChild),
                                       .least_sectors = KillImage::kLeastSectors,
                                       .most_sectors = KillImage::kMostSectors},
                                      *log);
    ASSERT_TRUE(pid) << pid.error().what();
    const bool from_the_start = below(10) == 0;
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!from_the_start && !log->is_open() && is_running(*pid) &&
           std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(microseconds(100));
    }
    std::this_thread::sleep_for(microseconds(below(1U << (10 + below(8)))));
    ASSERT_EQ(::kill(*pid, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(*pid, &status, 0), *pid);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it had ended by itself";
    ++counts_.kills;
    if (!log->is_open()) ++counts_.opening;
    ASSERT_TRUE(from_the_start || log->is_open()) << "it did not open the disk in time";
    learn(log->events());
  }

  static bool is_running(pid_t pid) {
    siginfo_t info = {};
    return ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == 0;
  }

  void learn(std::span<const DiskEvent> events) {
    std::map<uint64_t, EventKind> running;
    for (const DiskEvent& event : events) {
      ASSERT_EQ(event.error, 0) << "a request failed";
      image_.model().apply(event);
      if (event.kind != EventKind::kEnd) {
        running[event.id] = event.kind;
        ++counts_.requests;
        continue;
      }
      if (running[event.id] == EventKind::kFlush) ++counts_.flushes;
      running.erase(event.id);
    }
    const auto is_any = [&](EventKind kind) {
      return std::ranges::any_of(running, [&](const auto& one) { return one.second == kind; });
    };
    if (is_any(EventKind::kFlush)) ++counts_.flushing;
    if (is_any(EventKind::kResize)) ++counts_.resizing;
  }

  void repair() {
    if (image_.is_raw()) return;
    image_.expect_sound(true);
    const auto checked = check_image({.path = image_.path(), .repair = true});
    ASSERT_TRUE(checked) << checked.error().what();
    ASSERT_EQ(checked->errors, 0u) << checked->messages.front();
    ASSERT_EQ(checked->leaks, 0u) << checked->messages.front();
    if (checked->repaired_leaks == 0) return;
    ++counts_.leaking;
    image_.expect_sound(false);
  }

  void work_on() {
    ToolImage::Options how{.read_only = false};
    if (image_.is_raw()) how.format = ImageFormat::kRaw;
    auto opened = ToolImage::open(image_.path(), how);
    ASSERT_TRUE(opened) << opened.error().what();
    const uint64_t sectors = opened->disk().size() / kSector;
    SectorModel& model = image_.model();
    ASSERT_TRUE(model.may_have_sectors(sectors)) << sectors << " sectors";
    std::vector<std::byte> bytes(sectors * kSector);
    ASSERT_EQ(transfer(*opened, Kind::kRead, 0, bytes), 0);
    model.restart(sectors);
    for (uint64_t i = 0; i < sectors; ++i) {
      const auto number = SectorModel::number_in(std::span(bytes).subspan(i * kSector, kSector));
      ASSERT_TRUE(number) << "sector " << i << " is torn";
      ASSERT_TRUE(model.may_hold(i, *number))
          << "sector " << i << ": " << *number << ", not" << model.describe(i);
      model.adopt(i, *number);
    }
    const uint64_t first = below(sectors - kWorkedOn);
    std::vector<std::byte> written(kWorkedOn * kSector);
    for (uint64_t i = 0; i < kWorkedOn; ++i) {
      const uint64_t number = image_.take_numbers(1);
      SectorModel::fill(std::span(written).subspan(i * kSector, kSector), number);
      model.adopt(first + i, number);
    }
    ASSERT_EQ(transfer(*opened, Kind::kWrite, first * kSector, written), 0);
    std::vector<std::byte> read(written.size());
    ASSERT_EQ(transfer(*opened, Kind::kRead, first * kSector, read), 0);
    ASSERT_TRUE(read == written);
  }

  static int transfer(ToolImage& image, Kind kind, uint64_t offset, std::span<std::byte> bytes) {
    Request request;
    request.kind = kind;
    request.offset = offset;
    request.length = bytes.size();
    request.buffers = {GuestSlice::over(bytes)};
    image.disk().start(request);
    image.disk().submit();
    while (request.result < 0 && image.loop().run_once(kPatience)) continue;
    return request.result;
  }

  std::mt19937_64 random_;
  const bool uring_;
  Counts& counts_;
  KillImage image_;
};

class DiskKillTest : public ::testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(, DiskKillTest, testing::Values(true, false),
                         [](const auto& uring) { return uring.param ? "Uring" : "Threads"; });

TEST_P(DiskKillTest, WhatWasFlushedIsThere) {
  if (GetParam()) {
    const auto ring = IoUring::create(8);
    if (!ring) GTEST_SKIP() << ring.error().what();
  }
  const uint64_t seed = number_from("CROSVM_TEST_SEED", 7);
  SCOPED_TRACE(format_text("CROSVM_TEST_SEED={}", seed));
  const uint64_t kills = number_from("CROSVM_TEST_KILLS", 100) / 2;  // by each way of I/O
  Counts counts;
  for (uint64_t number = 0; counts.kills < kills && !HasFailure(); ++number) {
    const uint64_t image = seed * 1'000'000 + number * 2 + (GetParam() ? 1 : 0);
    SCOPED_TRACE(format_text("image {}", image));
    KilledDisk(image, GetParam(), counts).run(std::min(kKillsOfImage, kills - counts.kills));
  }
  std::printf(
      "%lu kills, %lu of them while opening, %lu in a flush, %lu in a resize; %lu requests, "
      "%lu flushes; %lu kills left leaks\n",
      counts.kills, counts.opening, counts.flushing, counts.resizing, counts.requests,
      counts.flushes, counts.leaking);
  // All of that happens, or nothing was tested.
  EXPECT_GT(counts.flushes, kills / 4);
  EXPECT_GT(counts.flushing, 0u);
}

}  // namespace
}  // namespace crosvm
