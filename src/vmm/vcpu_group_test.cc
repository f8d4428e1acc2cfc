#include "vmm/vcpu_group.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <future>
#include <optional>
#include <random>

namespace crosvm {
namespace {

class NoIo : public IoHandler {
 public:
  void port_read(uint16_t, std::span<std::byte>) override {}
  void port_write(uint16_t, std::span<const std::byte>) override {}
  void mmio_read(GuestAddress, std::span<std::byte>) override {}
  void mmio_write(GuestAddress, std::span<const std::byte>) override {}
};

/// What a test tells its vCPUs and hears from them.
struct Script {
  std::atomic<int> in_guest{0};
  std::atomic<int> pauses{0};
  std::atomic<VcpuExit::Kind> next{VcpuExit::Kind::kInterrupted};  // else the next run's exit
};

/// In the guest until it is kicked, or until the script says otherwise.
class FakeVcpu : public Vcpu {
 public:
  FakeVcpu(uint32_t id, Script& script) : id_(id), script_(script) {}
  uint32_t id() const override { return id_; }
  Result<VcpuExit> run(IoHandler&) override {
    ++script_.in_guest;
    VcpuExit exit;
    while (!immediate_exit_) {
      exit.kind = script_.next.exchange(VcpuExit::Kind::kInterrupted);
      if (exit.kind != VcpuExit::Kind::kInterrupted) break;
      ::poll(nullptr, 0, 1);
    }
    --script_.in_guest;
    return exit;
  }
  void set_immediate_exit(bool exit) override { immediate_exit_ = exit; }
  void notify_paused() override { ++script_.pauses; }
  std::string describe() override { return "a fake"; }

 private:
  const uint32_t id_;
  Script& script_;
  std::atomic<bool> immediate_exit_ = false;
};

class VcpuGroupTest : public testing::Test {
 protected:
  void start(uint32_t count) {
    std::vector<std::unique_ptr<Vcpu>> vcpus;
    for (uint32_t id = 0; id < count; ++id) {
      vcpus.push_back(std::make_unique<FakeVcpu>(id, script_));
    }
    ASSERT_TRUE(group_.start(std::move(vcpus)).has_value());
  }
  /// Waits for the answer to a suspension.
  bool suspend() {
    std::promise<bool> answer;
    group_.suspend([&answer](bool stopped) { answer.set_value(stopped); });
    return answer.get_future().get();
  }
  void wait_until(const std::function<bool()>& condition) {
    while (!condition()) ::poll(nullptr, 0, 1);  // the test's own time-out ends a hang
  }

  Script script_;
  NoIo io_;
  std::mutex mutex_;
  std::vector<ExitState> ends_;
  std::atomic<int> resumes_{0};
  VcpuGroup group_{io_,
                   {.ended =
                        [this](ExitState state) {
                          std::lock_guard lock(mutex_);
                          ends_.push_back(state);
                        },
                    .resumed = [this] { ++resumes_; }}};
};

TEST_F(VcpuGroupTest, ASuspensionIsAnsweredWhenNobodyIsInTheGuest) {
  start(4);
  wait_until([this] { return script_.in_guest == 4; });
  EXPECT_TRUE(suspend());
  EXPECT_EQ(script_.in_guest, 0);
  EXPECT_EQ(script_.pauses, 4) << "the guest's clock knows of the pause";
  EXPECT_TRUE(suspend()) << "idempotent";
  EXPECT_EQ(resumes_, 0);
  group_.resume();
  EXPECT_EQ(resumes_, 1);
  wait_until([this] { return script_.in_guest == 4; });
  group_.resume();
  EXPECT_EQ(resumes_, 1) << "it was running";
}

TEST_F(VcpuGroupTest, ExitTakesSuspendedAndRunningVcpusOut) {
  start(2);
  EXPECT_TRUE(suspend());
  group_.exit();
  EXPECT_EQ(script_.in_guest, 0);
  EXPECT_FALSE(suspend()) << "there is nothing left to suspend";
}

TEST_F(VcpuGroupTest, EachEndOfAVcpuHasItsExitState) {
  const std::pair<VcpuExit::Kind, ExitState> cases[] = {
      {VcpuExit::Kind::kShutdown, ExitState::kStop},
      {VcpuExit::Kind::kSystemShutdown, ExitState::kStop},
      {VcpuExit::Kind::kSystemReset, ExitState::kReset},
      {VcpuExit::Kind::kSystemCrash, ExitState::kGuestPanic},
      {VcpuExit::Kind::kFailEntry, ExitState::kCrash},
      {VcpuExit::Kind::kInternalError, ExitState::kCrash},
      {VcpuExit::Kind::kUnknown, ExitState::kCrash},
  };
  start(std::size(cases));
  for (const auto& [kind, state] : cases) {
    script_.next = kind;
    wait_until([this] { return script_.next == VcpuExit::Kind::kInterrupted; });
    wait_until([this] {
      std::lock_guard lock(mutex_);
      return !ends_.empty();
    });
    std::lock_guard lock(mutex_);
    EXPECT_EQ(ends_.back(), state);
    ends_.clear();
  }
}

TEST_F(VcpuGroupTest, SuspensionsAndResumesFromManyThreadsLoseNoAnswer) {
  start(3);
  std::atomic<int> answers{0};
  std::vector<std::thread> askers;
  for (unsigned seed = 1; seed <= 3; ++seed) {
    askers.emplace_back([this, seed, &answers] {
      std::mt19937 random(seed);
      for (int i = 0; i < 300; ++i) {
        if (random() % 2 == 0) {
          group_.suspend([&answers](bool) { ++answers; });
        } else {
          group_.resume();
          ++answers;
        }
      }
    });
  }
  for (std::thread& asker : askers) asker.join();
  group_.exit();
  EXPECT_EQ(answers, 900);
  EXPECT_EQ(script_.in_guest, 0);
}

}  // namespace
}  // namespace crosvm
