#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <future>

#include "vhost/conformance/scripted_peer.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/rig/rig.h"
#include "virtio/ring_abi.h"

// The log of dirty pages, as a front-end has it kept.

namespace crosvm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr uint64_t kLogBytes = RigMemory::kEnd.value / kVhostUserLogPage / 8;

VhostUserOptions options() {
  return {.name = "echo0", .device_type = 0xffff, .max_queue_size = 256, .config_length = 8};
}

Fd make_log() {
  Fd file(::memfd_create("log", MFD_CLOEXEC));
  CHECK(::ftruncate(file.get(), static_cast<off_t>(kLogBytes)) == 0);
  return file;
}

bool marked(const Fd& log, uint64_t page) {
  uint8_t byte = 0;
  CHECK(::pread(log.get(), &byte, 1, static_cast<off_t>(page / 8)) == 1);
  return (byte >> page % 8 & 1) != 0;
}

/// What a call with a `done` comes to, or "" when it goes well.
template <class Call>
std::string outcome(Call call) {
  auto told = std::make_shared<std::promise<std::string>>();
  call([told](Result<void> result) { told->set_value(result ? "" : result.error().what()); });
  auto future = told->get_future();
  return future.wait_for(30s) == std::future_status::ready ? future.get() : "nothing";
}
std::string start_log(VhostUserBackend& backend, const Fd& log, uint64_t bytes = kLogBytes) {
  return outcome([&](std::function<void(Result<void>)> done) {
    backend.start_dirty_log(std::move(*log.duplicate()), bytes, std::move(done));
  });
}
std::string stop_log(VhostUserBackend& backend) {
  return outcome(
      [&](std::function<void(Result<void>)> done) { backend.stop_dirty_log(std::move(done)); });
}

class Poller : public RigWaiter {
 public:
  void wait(const Fd&, Clock::time_point) override { std::this_thread::sleep_for(1ms); }
  bool broken() const override { return false; }
};

TEST(VhostUserBackendLog, ADeviceThatRunsIsLogged) {
  RigMemory memory;
  Poller waiter;
  LoopThread control;
  auto [ours, theirs] = socket_pair();
  EchoServer server(std::move(theirs), {.queue_sizes = {16, 16}});
  auto made = VhostUserBackend::create(control.loop(), std::move(ours), options());
  ASSERT_TRUE(made.has_value());
  VhostUserBackend& backend = **made;
  RigDriver driver(memory, waiter, {.ring = {.size = 16}});
  backend.set_features(uint64_t{1} << VIRTIO_F_VERSION_1);
  backend.set_memory(memory.guest());
  backend.set_vring_num(0, 16);
  backend.set_vring_addr(0, driver.ring().addresses());
  backend.set_vring_kick(0, std::move(*driver.kick_descriptor().duplicate()));
  backend.set_vring_call(0, std::move(*driver.call_descriptor().duplicate()));
  backend.set_vring_enable(0, true);
  const auto exchange = [&] {
    driver.send({readable("hello"), writable(5)});
    EXPECT_EQ(driver.wait_used().byte(0), 'h');
  };
  exchange();
  const Fd log = make_log();
  EXPECT_EQ(start_log(backend, log), "");
  const uint64_t used = driver.ring().addresses().device_area.value / kVhostUserLogPage;
  exchange();
  EXPECT_TRUE(marked(log, used));
  EXPECT_EQ(stop_log(backend), "");
  const Fd second = make_log();
  exchange();
  EXPECT_EQ(start_log(backend, second), "");
  EXPECT_THAT(start_log(backend, second, 4096),
              HasSubstr("echo0: the vhost-user back-end refuses"));
  exchange();
  EXPECT_TRUE(marked(second, used)) << "one that was refused changes nothing";
}

/// A back-end that says it logs.
struct Talk {
  explicit Talk(ScriptedPeer::Script script = {}) {
    script.features |= vhost_user_bit(kVhostLogAll);
    script.protocol_features |= vhost_user_bit(VHOST_USER_PROTOCOL_F_LOG_SHMFD);
    auto [ours, theirs] = socket_pair();
    peer.emplace(std::move(theirs), std::move(script));
    made = VhostUserBackend::create(control.loop(), std::move(ours), options());
    CHECK(made.has_value());
  }
  LoopThread control;
  std::optional<ScriptedPeer> peer;
  Result<std::unique_ptr<VhostUserBackend>> made = fail(Error::invalid("not made"));
};

/// Answers SET_LOG_BASE with these bytes.
ScriptedPeer::Script with_answer(std::vector<std::byte> payload) {
  ScriptedPeer::Script script;
  script.instead = [payload](ScriptedPeer& peer, const VhostUserMessage& message) {
    if (message.request != VHOST_USER_SET_LOG_BASE) return false;
    peer.send_message(ScriptedPeer::copy(message, payload));
    return true;
  };
  return script;
}

TEST(VhostUserBackendLog, TakesEitherAnswerOfABackEnd) {
  const auto number = [](uint64_t value) {
    return vhost_user_message(VHOST_USER_SET_LOG_BASE, value).payload;
  };
  Talk empty(with_answer({}));
  EXPECT_EQ(start_log(**empty.made, make_log()), "");
  Talk zero(with_answer(number(0)));
  EXPECT_EQ(start_log(**zero.made, make_log()), "");
  Talk one(with_answer(number(1)));
  EXPECT_THAT(start_log(**one.made, make_log()), HasSubstr("refuses the log of dirty pages"));
  Talk strange(with_answer(std::vector<std::byte>(3)));
  EXPECT_THAT(start_log(**strange.made, make_log()), HasSubstr("refuses the log of dirty pages"));
  (*zero.made)->set_features(uint64_t{1} << VIRTIO_F_VERSION_1);
  EXPECT_EQ(stop_log(**zero.made), "");
}

TEST(VhostUserBackendLog, TheGuestsFeaturesStayAsTheyAre) {
  Talk talk(with_answer({}));
  const uint64_t own = vhost_user_bit(kVhostUserProtocolFeatures) | vhost_user_bit(32);
  EXPECT_EQ((*talk.made)->info().features & vhost_user_bit(kVhostLogAll), 0u);
  EXPECT_EQ(start_log(**talk.made, make_log()), "");
  EXPECT_EQ(talk.peer->count(VHOST_USER_SET_FEATURES), 0u) << "no driver has said what it wants";
  const RigMemory memory;
  (*talk.made)->set_features(uint64_t{1} << VIRTIO_F_VERSION_1);
  EXPECT_EQ(start_log(**talk.made, make_log()), "");
  EXPECT_EQ(talk.peer->last_value(VHOST_USER_SET_FEATURES), own | vhost_user_bit(kVhostLogAll));
  EXPECT_EQ(stop_log(**talk.made), "");
  EXPECT_EQ(talk.peer->last_value(VHOST_USER_SET_FEATURES), own);
}

TEST(VhostUserBackendLog, SaysWhenThereIsNone) {
  LoopThread control;
  auto [ours, theirs] = socket_pair();
  ScriptedPeer peer(std::move(theirs), {});
  auto made = VhostUserBackend::create(control.loop(), std::move(ours), options());
  ASSERT_TRUE(made.has_value());
  EXPECT_THAT(start_log(**made, make_log()), HasSubstr("echo0: its vhost-user back-end keeps no "
                                                       "log of dirty pages"));
  EXPECT_EQ(peer.count(VHOST_USER_SET_LOG_BASE), 0u);
}

TEST(VhostUserBackendLog, ABackEndThatGoesIsAnError) {
  ScriptedPeer::Script script;
  script.instead = [](ScriptedPeer& peer, const VhostUserMessage& message) {
    if (message.request != VHOST_USER_SET_LOG_BASE) return false;
    peer.close();
    return true;
  };
  Talk talk(std::move(script));
  EXPECT_THAT(start_log(**talk.made, make_log()), HasSubstr("its vhost-user back-end is gone"));
  EXPECT_THAT(start_log(**talk.made, make_log()), HasSubstr("it has no back-end now"));
}

}  // namespace
}  // namespace crosvm
