#include "virtio/local_backend.h"

#include <gtest/gtest.h>

#include <atomic>
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

}  // namespace
}  // namespace crosvm
