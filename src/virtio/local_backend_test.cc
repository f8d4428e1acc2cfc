#include "virtio/local_backend.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <set>
#include <thread>

#include "virtio/rig/echo_device.h"
#include "virtio/rig/rig.h"

namespace crosvm {
namespace {

struct NoDevice : OpenedDevice {
  size_t rings() const override { return 0; }
  Result<std::unique_ptr<VirtioDevice>> create(DeviceContext) override {
    return fail(Error(std::errc::no_such_device, "the image is gone"));
  }
};

TEST(LocalBackend, PassesOnWhyThereIsNoDevice) {
  const auto backend = LocalBackend::create("block3", std::make_unique<NoDevice>());
  ASSERT_FALSE(backend.has_value());
  EXPECT_EQ(backend.error().code(), std::errc::no_such_device);
  EXPECT_EQ(backend.error().what(), "block3: the image is gone");
}

struct RingCounter : OpenedDevice {
  explicit RingCounter(size_t& found) : found_(found) {}
  size_t rings() const override { return 3; }
  Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) override {
    found_ = context.rings.size();
    return std::make_unique<EchoDevice>(EchoOptions(), std::move(context));
  }
  size_t& found_;
};

TEST(LocalBackend, GivesTheDeviceItsRingsOrNone) {
  size_t found = 99;
  ASSERT_TRUE(LocalBackend::create("block0", std::make_unique<RingCounter>(found)));
  EXPECT_TRUE(found == 3 || found == 0) << found;
  const bool available = IoUring::create(8).has_value();
  EXPECT_EQ(found, available ? 3u : 0u);
}

TEST(LocalBackend, EndsWithoutEverBeingUsed) {
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(LocalBackend::create("echo", open_echo({})));
}

TEST(LocalBackend, WaitsInItsEndForWhatIsInFlight) {
  EchoControl control;
  std::atomic<bool> released = false;
  std::thread later;
  {
    auto rig =
        must_have_rig(Rig::create(open_echo({.mode = EchoMode::kHeld, .control = &control})));
    for (int i = 0; i < 20; ++i) rig.driver(0).send({readable("abc"), writable(3)});
    EXPECT_FALSE(rig.driver(0).wait_used(std::chrono::milliseconds(20)).arrived);
    later = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      released = true;
      control.release();
    });
  }
  EXPECT_TRUE(released) << "ended with requests in flight";
  later.join();
}

TEST(LocalBackend, ResetsWithRequestsInFlight) {
  EchoControl control;
  auto rig = must_have_rig(Rig::create(open_echo({.mode = EchoMode::kHeld, .control = &control})));
  for (int i = 0; i < 20; ++i) rig.driver(0).send({readable("abc"), writable(3)});
  EXPECT_FALSE(rig.driver(0).wait_used(std::chrono::milliseconds(20)).arrived);
  std::atomic<bool> done = false;
  rig.backend().reset([&] { done = true; });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_FALSE(done);
  control.release();
  rig.reset();
  EXPECT_TRUE(done);
  const RigToken token = rig.driver(0).send({readable("def"), writable(3)});
  EXPECT_EQ(rig.driver(0).wait_used(token).last_byte(), 'f');
}

TEST(LocalBackend, TellsItsListenerOfChangesUntilItLeaves) {
  auto rig = must_have_rig(Rig::create(open_echo({})));
  const unsigned before = rig.config_changes();
  const std::array<std::byte, 2> data{std::byte{7}, std::byte{8}};
  rig.write_config(6, data);
  ASSERT_TRUE(rig.wait_config_change(before));
  EXPECT_EQ(rig.config()[7], std::byte{8});
  rig.backend().set_listener(nullptr);
  rig.write_config(0, data);
  (void)rig.stop_queue(0);  // the write has been seen by then
  EXPECT_EQ(rig.config_changes(), before + 1);
}

TEST(LocalBackend, SwitchesListenersWhileTheyAreCalled) {
  struct Listener : BackendListener {
    void config_changed(std::vector<std::byte>) override {
      EXPECT_TRUE(alive);
      ++calls;
    }
    void needs_reset() override {}
    ~Listener() override { alive = false; }
    bool alive = true;
    std::atomic<int> calls = 0;
  };
  auto backend = LocalBackend::create("echo", open_echo({}));
  ASSERT_TRUE(backend.has_value());
  for (int i = 0; i < 300; ++i) {
    Listener listener;
    (*backend)->set_listener(&listener);
    (*backend)->set_config(0, {std::byte{1}});
    if (i % 2 == 0) std::this_thread::yield();
    (*backend)->set_listener(nullptr);
  }
}

/// Counts configuration writes without keeping one, and says nothing of them; the first waits.
class DeafDevice : public EchoDevice {
 public:
  struct Control {
    std::atomic<unsigned> writes = 0;
    std::atomic<unsigned> last = 0;
    std::atomic<bool> go = true;
  };
  DeafDevice(Control& control, DeviceContext context)
      : EchoDevice(EchoOptions(), std::move(context)), control_(control) {}
  void write_config(size_t, std::span<const std::byte> data) override {
    control_.go.wait(false);
    control_.last = std::to_integer<unsigned>(data[0]) + 256 * std::to_integer<unsigned>(data[1]);
    ++control_.writes;
  }

 private:
  Control& control_;
};

struct Deaf : OpenedDevice {
  explicit Deaf(DeafDevice::Control& control) : control_(control) {}
  size_t rings() const override { return 0; }
  Result<std::unique_ptr<VirtioDevice>> create(DeviceContext context) override {
    return std::make_unique<DeafDevice>(control_, std::move(context));
  }
  DeafDevice::Control& control_;
};

void settle(DeviceBackend& backend) {
  std::promise<void> seen;
  backend.get_vring_base(0, [&](RingPosition) { seen.set_value(); });
  seen.get_future().wait();
}

struct ConfigListener : BackendListener {
  void config_changed(std::vector<std::byte> config) override { configs.push_back(config); }
  void needs_reset() override { broken = true; }
  std::vector<std::vector<std::byte>> configs;  // looked at when the backend has settled
  std::atomic<bool> broken = false;
};

TEST(LocalBackend, TellsANewListenerOfAnEarlierChange) {
  auto backend = LocalBackend::create("echo", open_echo({}));
  ASSERT_TRUE(backend.has_value());
  ConfigListener listener;
  (*backend)->set_listener(&listener);
  EXPECT_TRUE(listener.configs.empty()) << "it knows info()";
  (*backend)->set_listener(nullptr);
  (*backend)->set_config(3, {std::byte{9}});
  settle(**backend);
  (*backend)->set_listener(&listener);
  ASSERT_EQ(listener.configs.size(), 1u);
  EXPECT_EQ(listener.configs[0].at(3), std::byte{9});
  EXPECT_EQ((*backend)->info().config.at(3), std::byte{0});
}

TEST(LocalBackend, AnswersAConfigWriteThatTheDeviceDidNotTake) {
  DeafDevice::Control control;
  auto backend = LocalBackend::create("deaf", std::make_unique<Deaf>(control));
  ASSERT_TRUE(backend.has_value());
  ConfigListener listener;
  (*backend)->set_listener(&listener);
  (*backend)->set_config(0, {std::byte{9}, std::byte{9}});
  settle(**backend);
  (*backend)->set_listener(nullptr);
  ASSERT_EQ(listener.configs.size(), 1u);
  EXPECT_EQ(listener.configs[0], (*backend)->info().config);
}

TEST(LocalBackend, ADriverThatNeverCeasesToWriteIsHeldInBounds) {
  DeafDevice::Control control;
  control.go = false;
  auto backend = LocalBackend::create("deaf", std::make_unique<Deaf>(control));
  ASSERT_TRUE(backend.has_value());
  auto write = [&](unsigned value) {
    (*backend)->set_config(0, {static_cast<std::byte>(value), static_cast<std::byte>(value >> 8)});
  };
  for (unsigned i = 0; i < 20'000; ++i) write(i);
  control.go = true;
  control.go.notify_all();
  settle(**backend);
  EXPECT_GE(control.writes, 1024u) << "a console's emergency writes count one by one";
  EXPECT_LE(control.writes, 3000u);
  EXPECT_EQ(control.last, 19'999u);
  write(1);
  write(2);
  settle(**backend);
  EXPECT_EQ(control.last, 2u);
}

std::set<int> epoll_descriptors() {
  std::set<int> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry, gone) == "anon_inode:[eventpoll]") {
      found.insert(std::stoi(entry.path().filename()));
    }
  }
  return found;
}

TEST(LocalBackend, AFailedLoopStillEndsResetsAndStops) {
  const std::set<int> before = epoll_descriptors();
  EchoControl control;
  auto rig = must_have_rig(Rig::create(open_echo({.mode = EchoMode::kHeld, .control = &control})));
  std::set<int> loops = epoll_descriptors();
  for (int fd : before) loops.erase(fd);
  ASSERT_EQ(loops.size(), 1u);
  rig.driver(0).send({readable("abc"), writable(3)});
  EXPECT_FALSE(rig.driver(0).wait_used(std::chrono::milliseconds(20)).arrived);
  ConfigListener listener;
  rig.backend().set_listener(&listener);

  std::promise<void> under_way;
  rig.backend().reset([&] { under_way.set_value(); });
  const Fd no_epoll(::open("/dev/null", O_RDWR | O_CLOEXEC));
  ASSERT_GE(::dup3(no_epoll.get(), *loops.begin(), O_CLOEXEC), 0);
  rig.backend().set_config(0, {std::byte{1}});  // wakes the loop, which then cannot wait any more
  ASSERT_EQ(under_way.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_TRUE(listener.broken);

  std::promise<void> later;
  listener.broken = false;
  rig.backend().set_features(0);
  EXPECT_TRUE(listener.broken) << "a driver that comes after the reset is told";
  rig.backend().reset([&] { later.set_value(); });
  ASSERT_EQ(later.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
  settle(rig.backend());
  rig.backend().set_listener(nullptr);
}

}  // namespace
}  // namespace crosvm
