#include "vhost/vhost_user_backend.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/virtio_ids.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "vhost/conformance/scripted_peer.h"
#include "vhost/conformance/threads.h"
#include "virtio/rig/rig.h"
#include "virtio/ring_abi.h"

namespace crosvm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using Script = ScriptedPeer::Script;

constexpr uint64_t bit(unsigned number) { return uint64_t{1} << number; }

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

VhostUserOptions options(uint32_t type = 0xffff) {
  return {.name = "echo0", .device_type = type, .max_queue_size = 256, .config_length = 8};
}

struct Listener : BackendListener {
  void config_changed(std::vector<std::byte>) override { ++changes; }
  void needs_reset() override { ++resets; }
  std::atomic<unsigned> changes = 0;
  std::atomic<unsigned> resets = 0;
};

/// Says nothing any more once `request` has come.
Script silent_from(uint32_t request) {
  Script script;
  script.instead = [request, silent = std::make_shared<bool>(false)](
                       ScriptedPeer&, const VhostUserMessage& message) {
    *silent = *silent || message.request == request;
    return *silent;
  };
  return script;
}

/// A backend with a scripted peer behind it.
struct Talk {
  explicit Talk(Script script, VhostUserOptions wanted = options()) {
    auto [ours, theirs] = socket_pair();
    peer.emplace(std::move(theirs), std::move(script));
    made = VhostUserBackend::create(control.loop(), std::move(ours), std::move(wanted));
  }
  VhostUserBackend& backend() {
    if (!made) ADD_FAILURE() << made.error().what();
    CHECK(made.has_value());
    return **made;
  }
  std::string error() const { return made ? "" : made.error().what(); }

  const RigMemory memory;  // outlives the backend
  LoopThread control;
  std::optional<ScriptedPeer> peer;
  Result<std::unique_ptr<VhostUserBackend>> made = fail(Error::invalid("not made"));
};

void stop(DeviceBackend& backend, uint16_t queue = 0) {
  std::promise<void> stopped;
  backend.get_vring_base(queue, [&](RingPosition) { stopped.set_value(); });
  ASSERT_EQ(stopped.get_future().wait_for(30s), std::future_status::ready);
}

void reset(DeviceBackend& backend) {
  std::promise<void> done;
  backend.reset([&] { done.set_value(); });
  ASSERT_EQ(done.get_future().wait_for(30s), std::future_status::ready);
}

/// A ring that its back-end does not look at.
void set_up(DeviceBackend& backend, const RigMemory& memory, uint16_t queue = 0) {
  backend.set_features(bit(VIRTIO_F_VERSION_1));
  backend.set_memory(memory.guest());
  backend.set_vring_num(queue, 16);
  backend.set_vring_addr(queue, {GuestAddress{0x1000}, GuestAddress{0x2000}, GuestAddress{0x3000}});
  backend.set_vring_kick(queue, std::move(*make_eventfd()));
  backend.set_vring_call(queue, std::move(*make_eventfd()));
  backend.set_vring_enable(queue, true);
}

// ---- the handshake

TEST(VhostUserBackend, ShowsTheGuestNoFeatureOfVhostItself) {
  Talk talk({.features = ~uint64_t{0}});
  const uint64_t shown = talk.backend().info().features;
  for (const unsigned hidden : {26u, 27u, 30u, unsigned{VIRTIO_F_ACCESS_PLATFORM}, 36u, 37u, 38u}) {
    EXPECT_EQ(shown & bit(hidden), 0u) << hidden;
  }
  EXPECT_NE(shown & bit(VIRTIO_F_RING_PACKED), 0u);
  EXPECT_NE(shown & bit(VIRTIO_RING_F_EVENT_IDX), 0u);
  EXPECT_EQ(talk.backend().info().queue_sizes, (std::vector<uint16_t>{256, 256}));
}

TEST(VhostUserBackend, SaysThatABackEndServesLegacyDriversAlone) {
  Talk talk({.features = bit(kVhostUserProtocolFeatures)});
  EXPECT_THAT(talk.error(), HasSubstr("echo0: the vhost-user back-end's features 0x40000000 lack "
                                      "VIRTIO_F_VERSION_1"));
}

TEST(VhostUserBackend, TakesABackEndWithoutProtocolFeatures) {
  Talk talk({.features = bit(VIRTIO_F_VERSION_1)}, {.name = "rng", .device_type = VIRTIO_ID_RNG});
  EXPECT_EQ(talk.backend().info().queue_sizes, (std::vector<uint16_t>{32768}));
  const RigMemory& memory = talk.memory;
  set_up(talk.backend(), memory);
  stop(talk.backend());
  EXPECT_EQ(talk.peer->last_value(VHOST_USER_SET_FEATURES), bit(VIRTIO_F_VERSION_1));
  EXPECT_EQ(talk.peer->count(VHOST_USER_SET_VRING_KICK), 1u);
  EXPECT_EQ(talk.peer->count(VHOST_USER_SET_VRING_ENABLE), 0u) << "not negotiated";
  EXPECT_EQ(talk.peer->count(VHOST_USER_GET_PROTOCOL_FEATURES), 0u);
}

TEST(VhostUserBackend, NegotiatesProtocolFeatures) {
  Talk talk({});
  const RigMemory& memory = talk.memory;
  set_up(talk.backend(), memory);
  stop(talk.backend());
  EXPECT_EQ(talk.peer->last_value(VHOST_USER_SET_FEATURES),
            bit(VIRTIO_F_VERSION_1) | bit(kVhostUserProtocolFeatures));
  EXPECT_EQ(talk.peer->count(VHOST_USER_SET_VRING_ENABLE), 2u) << "on, and off when it stops";
  EXPECT_EQ(talk.peer->last_value(VHOST_USER_SET_PROTOCOL_FEATURES), Script().protocol_features);
}

TEST(VhostUserBackend, FindsTheLengthOfAConfiguration) {
  Talk talk({.config_length = 60}, {.name = "disk", .device_type = VIRTIO_ID_BLOCK});
  EXPECT_EQ(talk.backend().info().config.size(), 60u);
  Talk none({.config_length = 5}, {.name = "disk", .device_type = VIRTIO_ID_BLOCK});
  EXPECT_THAT(none.error(), HasSubstr("disk: the vhost-user back-end refuses to tell the device "
                                      "configuration"));
}

TEST(VhostUserBackend, CountsQueues) {
  Talk pairs({.queues = 3}, {.name = "net", .device_type = VIRTIO_ID_NET, .config_length = 8});
  EXPECT_EQ(pairs.backend().info().queue_sizes.size(), 6u);
  Talk many({.queues = 257});
  EXPECT_THAT(many.error(), HasSubstr("257 queues, 256 can be"));
  Talk endless({.queues = UINT64_MAX});
  EXPECT_THAT(endless.error(), HasSubstr("queues, 256 can be"));
  VhostUserOptions known = options();
  known.queue_sizes = {64, 64, 64};
  Talk few({.queues = 2}, known);
  EXPECT_THAT(few.error(), HasSubstr("echo0: the vhost-user back-end has 2 queues instead of 3"));
}

TEST(VhostUserBackend, DoesNotWaitForABackEndThatIsSilent) {
  VhostUserOptions wanted = options();
  wanted.patience = 50ms;
  Talk talk({.instead = [](auto&, auto&) { return true; }}, wanted);
  EXPECT_THAT(talk.error(), HasSubstr("echo0: no answer to vhost-user request 1 in 50 ms"));
}

TEST(VhostUserBackend, StartsManyAtTheSameTime) {
  LoopThread control;
  std::vector<std::unique_ptr<ScriptedPeer>> peers;
  std::vector<VhostUserBackend::Starting> starting;
  for (int i = 0; i < 4; ++i) {
    auto [ours, theirs] = socket_pair();
    auto start = VhostUserBackend::start(control.loop(), std::move(ours), options());
    ASSERT_TRUE(start.has_value());
    starting.push_back(std::move(*start));
    peers.push_back(std::make_unique<ScriptedPeer>(std::move(theirs), Script()));
  }
  for (auto& each : starting) EXPECT_TRUE(each.finish().has_value());
}

// ---- what is set up

TEST(VhostUserBackend, TellsMoreMemoryRegionsOneByOne) {
  std::vector<RamRange> ranges;
  for (uint64_t i = 0; i < 9; ++i) ranges.push_back({GuestAddress{i << 21}, 1 << 20});
  auto memory = GuestMemory::create(ranges, {});
  ASSERT_TRUE(memory.has_value());
  Script script;
  script.protocol_features |= bit(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
  Talk talk(script);
  talk.backend().set_features(bit(VIRTIO_F_VERSION_1));
  for (int i = 0; i < 2; ++i) {
    talk.backend().set_memory(*memory);
    reset(talk.backend());
    talk.backend().set_features(bit(VIRTIO_F_VERSION_1));
  }
  reset(talk.backend());
  EXPECT_TRUE(eventually([&] { return talk.peer->count(VHOST_USER_ADD_MEM_REG) == 9u * 3; }));
  EXPECT_EQ(talk.peer->count(VHOST_USER_REM_MEM_REG), 9u * 2);
  EXPECT_EQ(talk.peer->count(VHOST_USER_SET_MEM_TABLE), 0u);

  Talk without({});
  Listener listener;
  without.backend().set_listener(&listener);
  without.backend().set_features(bit(VIRTIO_F_VERSION_1));
  without.backend().set_memory(*memory);
  EXPECT_TRUE(eventually([&] { return listener.resets == 1; }));
  without.backend().set_listener(nullptr);
}

TEST(VhostUserBackend, TellsTheStatusOfTheDevice) {
  Script script;
  script.protocol_features |=
      bit(VHOST_USER_PROTOCOL_F_STATUS) | bit(VHOST_USER_PROTOCOL_F_RESET_DEVICE);
  std::atomic<uint64_t> status = 0;
  script.instead = [&](ScriptedPeer& peer, const VhostUserMessage& message) {
    if (message.request != VHOST_USER_GET_STATUS) return false;
    peer.send_bytes(ScriptedPeer::wire(ScriptedPeer::value(message, status)));
    return true;
  };
  Talk talk(script);
  Listener listener;
  talk.backend().set_listener(&listener);
  const RigMemory& memory = talk.memory;
  set_up(talk.backend(), memory);
  EXPECT_TRUE(eventually([&] { return talk.peer->last_value(VHOST_USER_SET_STATUS) == 15; }));
  std::optional<Fd> socket;
  ASSERT_TRUE(eventually([&] { return (socket = talk.peer->take_requests()).has_value(); }));
  VhostUserChannel channel(std::move(*socket));
  const auto change = [&] {
    return channel.send(vhost_user_message(VHOST_USER_BACKEND_CONFIG_CHANGE_MSG)).has_value();
  };
  ASSERT_TRUE(change());
  EXPECT_TRUE(eventually([&] { return talk.peer->count(VHOST_USER_GET_STATUS) == 1; }));
  EXPECT_EQ(listener.resets, 0u);
  status = 15 | VIRTIO_CONFIG_S_NEEDS_RESET;
  ASSERT_TRUE(change());
  EXPECT_TRUE(eventually([&] { return listener.resets == 1; }));
  reset(talk.backend());
  EXPECT_EQ(talk.peer->last_value(VHOST_USER_SET_STATUS), 0u);
  EXPECT_EQ(talk.peer->count(VHOST_USER_RESET_DEVICE), 1u);
  talk.backend().set_listener(nullptr);
}

// ---- a back-end that goes away

TEST(VhostUserBackend, TellsAllWhenTheBackEndGoes) {
  Script script = silent_from(VHOST_USER_GET_VRING_BASE);  // something is in flight
  std::promise<std::string> gone;
  VhostUserOptions wanted = options();
  wanted.disconnected = [&](const Error& cause) {
    gone.set_value(cause.what());
    return AfterLoss::kGiveUp;
  };
  Talk talk(script, wanted);
  Listener listener;
  talk.backend().set_listener(&listener);
  const RigMemory& memory = talk.memory;
  set_up(talk.backend(), memory);
  std::promise<void> stopped;
  std::promise<void> is_reset;
  talk.backend().get_vring_base(0, [&](RingPosition) { stopped.set_value(); });
  talk.backend().reset([&] { is_reset.set_value(); });
  ASSERT_TRUE(eventually([&] { return talk.peer->count(VHOST_USER_GET_VRING_BASE) == 1; }));
  talk.peer->close();
  EXPECT_THAT(gone.get_future().get(), HasSubstr("closed the connection"));
  ASSERT_EQ(stopped.get_future().wait_for(30s), std::future_status::ready);
  ASSERT_EQ(is_reset.get_future().wait_for(30s), std::future_status::ready);
  EXPECT_TRUE(eventually([&] { return listener.resets == 1; }));
  // A driver that comes later is told too, and nothing waits.
  reset(talk.backend());
  set_up(talk.backend(), memory);
  stop(talk.backend());
  EXPECT_EQ(listener.resets, 2u);
  talk.backend().set_config(0, {std::byte{1}});
  EXPECT_TRUE(eventually([&] { return listener.changes >= 1; }));
  talk.backend().set_listener(nullptr);
}

TEST(VhostUserBackend, DeclaresASilentBackEndDead) {
  Script script = silent_from(VHOST_USER_GET_VRING_BASE);
  VhostUserOptions wanted = options();
  wanted.stop_patience = 100ms;
  std::promise<std::string> gone;
  wanted.disconnected = [&](const Error& cause) {
    gone.set_value(cause.what());
    return AfterLoss::kGiveUp;
  };
  Talk talk(script, wanted);
  const RigMemory& memory = talk.memory;
  set_up(talk.backend(), memory);
  stop(talk.backend());
  EXPECT_EQ(gone.get_future().get(), "no answer to vhost-user request 11 in 100 ms");
}

TEST(VhostUserBackend, NeedsAResetWhenTheBackEndRefuses) {
  for (const uint32_t refused :
       {VHOST_USER_SET_FEATURES, VHOST_USER_SET_MEM_TABLE, VHOST_USER_SET_VRING_NUM,
        VHOST_USER_SET_VRING_ADDR, VHOST_USER_SET_VRING_KICK, VHOST_USER_SET_VRING_ENABLE}) {
    Script script;
    script.instead = [refused](ScriptedPeer& peer, const VhostUserMessage& message) {
      if (message.request != refused) return false;
      peer.send_bytes(ScriptedPeer::wire(ScriptedPeer::value(message, 22)));
      return true;
    };
    Talk talk(script);
    Listener listener;
    talk.backend().set_listener(&listener);
    const RigMemory& memory = talk.memory;
    set_up(talk.backend(), memory);
    EXPECT_TRUE(eventually([&] { return listener.resets == 1; })) << refused;
    reset(talk.backend());
    talk.backend().set_listener(nullptr);
  }
}

/// Replays a whole life: a handshake, a ring that starts and stops, a configuration, a reset.
/// Whatever the peer does, it ends, and in time.
void live(Script script) {
  VhostUserOptions wanted = options();
  wanted.patience = wanted.stop_patience = 300ms;
  Talk talk(std::move(script), wanted);
  if (!talk.made) return;
  Listener listener;
  talk.backend().set_listener(&listener);
  const RigMemory& memory = talk.memory;
  set_up(talk.backend(), memory);
  talk.backend().set_config(0, {std::byte{1}});
  stop(talk.backend());
  reset(talk.backend());
  talk.backend().set_listener(nullptr);
}

constexpr uint32_t kAnswered[] = {VHOST_USER_GET_FEATURES,  VHOST_USER_GET_PROTOCOL_FEATURES,
                                  VHOST_USER_GET_QUEUE_NUM, VHOST_USER_SET_BACKEND_REQ_FD,
                                  VHOST_USER_GET_CONFIG,    VHOST_USER_SET_FEATURES,
                                  VHOST_USER_SET_MEM_TABLE, VHOST_USER_SET_VRING_KICK,
                                  VHOST_USER_GET_VRING_BASE};

TEST(VhostUserBackend, SurvivesAnEndAtEveryByteOfEveryAnswer) {
  for (const uint32_t request : kAnswered) {
    for (size_t bytes = 0; bytes < 32; ++bytes) {
      Script script;
      script.instead = [=](ScriptedPeer& peer, const VhostUserMessage& message) {
        if (message.request != request) return false;
        const auto whole = ScriptedPeer::wire(*peer.answer(message));
        peer.send_bytes(std::span(whole).first(std::min(bytes, whole.size())));
        peer.close();
        return true;
      };
      live(std::move(script));
    }
  }
}

TEST(VhostUserBackend, SurvivesAnswersThatCannotBe) {
  using Mangle = std::function<void(VhostUserMessage&)>;
  const std::vector<Mangle> mangles{
      [](VhostUserMessage& m) { m.request += 1; },
      [](VhostUserMessage& m) { m.flags = 0; },
      [](VhostUserMessage& m) { m.flags |= kVhostUserNeedReply; },
      [](VhostUserMessage& m) { m.payload.clear(); },
      [](VhostUserMessage& m) { m.payload.resize(m.payload.size() + 1); },
      [](VhostUserMessage& m) { m.payload.resize(4096); },
      [](VhostUserMessage& m) { m.payload.resize(4097); },
      [](VhostUserMessage& m) { m.payload.assign(m.payload.size(), std::byte{0xff}); },
  };
  for (const uint32_t request : kAnswered) {
    for (const Mangle& mangle : mangles) {
      for (const int copies : {1, 2}) {
        Script script;
        script.instead = [&, request, copies](ScriptedPeer& peer, const VhostUserMessage& message) {
          if (message.request != request) return false;
          auto answer = *peer.answer(message);
          mangle(answer);
          for (int i = 0; i < copies; ++i) peer.send_bytes(ScriptedPeer::wire(answer));
          return true;
        };
        live(std::move(script));
      }
    }
  }
}

// ---- what the back-end asks

TEST(VhostUserBackend, AnswersUnknownRequestsWithAnError) {
  Talk talk({});
  talk.backend();
  std::optional<Fd> socket;
  ASSERT_TRUE(eventually([&] { return (socket = talk.peer->take_requests()).has_value(); }));
  VhostUserChannel channel(std::move(*socket));
  const auto ask = [&](uint32_t request) {
    auto message = vhost_user_message(request);
    message.flags = kVhostUserNeedReply;
    message.fds.push_back(std::move(*make_eventfd()));
    auto answer = channel.call(std::move(message), VhostUserChannel::Clock::now() + 20s);
    EXPECT_TRUE(answer.has_value());
    return answer ? answer->payload_as<uint64_t>().value_or(99) : 99;
  };
  EXPECT_NE(ask(VHOST_USER_BACKEND_SHMEM_MAP), 0u);
  EXPECT_NE(ask(77), 0u);
  EXPECT_EQ(ask(VHOST_USER_BACKEND_CONFIG_CHANGE_MSG), 0u);
}

TEST(VhostUserBackend, IsNotOverrunByRequests) {
  Talk talk({});
  Listener listener;
  talk.backend().set_listener(&listener);
  std::optional<Fd> socket;
  ASSERT_TRUE(eventually([&] { return (socket = talk.peer->take_requests()).has_value(); }));
  const unsigned before = talk.peer->count(VHOST_USER_GET_CONFIG);
  const auto change = ScriptedPeer::wire(vhost_user_message(VHOST_USER_BACKEND_CONFIG_CHANGE_MSG));
  const auto until = std::chrono::steady_clock::now() + 500ms;
  while (std::chrono::steady_clock::now() < until) {
    (void)::send(socket->get(), change.data(), change.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  EXPECT_LT(talk.peer->count(VHOST_USER_GET_CONFIG) - before, 64u * 30u);
  stop(talk.backend());  // the loop serves others
  talk.backend().set_listener(nullptr);
}

// ---- another one in its place

/// Answers GET_INFLIGHT_FD with a file of its own, in which nothing is noted, and remembers the one
/// that it is given.
struct Note {
  static constexpr size_t kBytes = 8192;
  std::mutex mutex;
  ino_t made = 0;
  std::vector<ino_t> given;
  std::vector<uint32_t> order;  // of SET_INFLIGHT_FD and SET_VRING_NUM

  static ino_t inode(const Fd& fd) {
    struct stat about{};
    return ::fstat(fd.get(), &about) == 0 ? about.st_ino : 0;
  }
  Script script() {
    Script made_of;
    made_of.protocol_features |= bit(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);
    made_of.instead = [this](ScriptedPeer& peer, const VhostUserMessage& message) {
      std::lock_guard lock(mutex);
      if (message.request == VHOST_USER_SET_INFLIGHT_FD && message.fds.size() == 1) {
        given.push_back(inode(message.fds[0]));
      }
      if (message.request == VHOST_USER_SET_INFLIGHT_FD ||
          message.request == VHOST_USER_SET_VRING_NUM) {
        order.push_back(message.request);
      }
      if (message.request != VHOST_USER_GET_INFLIGHT_FD) return false;
      Fd file(::memfd_create("inflight", MFD_CLOEXEC));
      CHECK(::ftruncate(file.get(), kBytes) == 0);
      made = inode(file);
      auto answer = vhost_user_message(
          message.request,
          VhostUserInflight{.mmap_size = kBytes, .num_queues = 2, .queue_size = 256});
      answer.flags = kVhostUserReply;
      answer.fds.push_back(std::move(file));
      peer.send_message(std::move(answer));
      return true;
    };
    return made_of;
  }
};

TEST(VhostUserBackend, GivesTheNoteOfWhatIsInFlightToTheNextBackEnd) {
  Note first;
  Note second;
  VhostUserOptions wanted = options();
  std::atomic<bool> lost = false;
  wanted.disconnected = [&](const Error&) {
    lost = true;
    return AfterLoss::kAwaitAnother;
  };
  Talk talk(first.script(), wanted);
  const RigMemory& memory = talk.memory;
  set_up(talk.backend(), memory);
  ASSERT_TRUE(eventually([&] { return talk.peer->count(VHOST_USER_SET_VRING_ENABLE) == 1; }));
  talk.peer.reset();
  ASSERT_TRUE(eventually([&] { return lost.load(); }));
  EXPECT_EQ(first.given, std::vector<ino_t>{first.made});
  EXPECT_EQ(first.order,
            (std::vector<uint32_t>{VHOST_USER_SET_INFLIGHT_FD, VHOST_USER_SET_VRING_NUM}));

  auto [ours, theirs] = socket_pair();
  talk.peer.emplace(std::move(theirs), second.script());
  std::promise<bool> done;
  talk.backend().reconnect(std::move(ours),
                           [&](Result<void> result) { done.set_value(result.has_value()); });
  EXPECT_TRUE(done.get_future().get());
  stop(talk.backend());
  EXPECT_EQ(talk.peer->count(VHOST_USER_GET_INFLIGHT_FD), 0u);
  {
    std::lock_guard lock(second.mutex);
    EXPECT_EQ(second.given, std::vector<ino_t>{first.made});
  }
  // A reset ends what it is about.
  reset(talk.backend());
  set_up(talk.backend(), memory);
  ASSERT_TRUE(eventually([&] { return talk.peer->count(VHOST_USER_GET_INFLIGHT_FD) == 1; }));
}

/// A backend whose first back-end never looks at a ring; then another one comes.
struct Handover {
  explicit Handover(Script script) : script(std::move(script)) {
    VhostUserOptions wanted = options();
    wanted.disconnected = [this](const Error&) {
      lost = true;
      return AfterLoss::kAwaitAnother;
    };
    talk.emplace(this->script, wanted);
  }
  void set_up_ring(uint64_t features, RingPosition base, Fd call) {
    DeviceBackend& backend = talk->backend();
    backend.set_features(bit(VIRTIO_F_VERSION_1) | features);
    backend.set_memory(talk->memory.guest());
    backend.set_vring_num(0, 16);
    backend.set_vring_addr(0, {GuestAddress{0x1000}, GuestAddress{0x2000}, GuestAddress{0x3000}});
    backend.set_vring_base(0, base);
    backend.set_vring_call(0, std::move(call));
    backend.set_vring_kick(0, std::move(*make_eventfd()));
    backend.set_vring_enable(0, true);
    ASSERT_TRUE(eventually([&] { return talk->peer->count(VHOST_USER_SET_VRING_ENABLE) == 1; }));
  }
  void take_over() {
    talk->peer.reset();
    ASSERT_TRUE(eventually([&] { return lost.load(); }));
    auto [ours, theirs] = socket_pair();
    talk->peer.emplace(std::move(theirs), script);
    std::promise<bool> done;
    talk->backend().reconnect(std::move(ours),
                              [&](Result<void> result) { done.set_value(result.has_value()); });
    ASSERT_TRUE(done.get_future().get());
    ASSERT_TRUE(eventually([&] { return talk->peer->count(VHOST_USER_SET_VRING_ENABLE) == 1; }));
  }
  /// Of queue 0, as the present back-end was told.
  uint32_t base() {
    return static_cast<uint32_t>(talk->peer->last_value(VHOST_USER_SET_VRING_BASE) >> 32);
  }

  Script script;
  std::atomic<bool> lost = false;
  std::optional<Talk> talk;
};

/// A note without a version is one that no back-end began: the ring is still where it was, which
/// for a packed ring is a wrap counter of 1.
TEST(VhostUserBackend, APackedRingThatNobodyLookedAtIsWhereItWas) {
  Note note;
  Script script = note.script();
  script.features |= bit(VIRTIO_F_RING_PACKED);
  Handover handover(std::move(script));
  handover.set_up_ring(bit(VIRTIO_F_RING_PACKED), {.index = 3, .wrap_counter = true}, {});
  const uint32_t before = handover.base();
  EXPECT_EQ(before, 0x80038003u);
  handover.take_over();
  EXPECT_EQ(handover.base(), before);
  EXPECT_EQ(note.given.size(), 2u) << "it was the same note";
}

/// The one that died may have given requests back and not said so.
TEST(VhostUserBackend, TheDriverLooksAtItsRingsWhenAnotherBackEndTakesOver) {
  Handover handover({});
  const Fd call = std::move(*make_eventfd());
  handover.set_up_ring(0, {}, std::move(*call.duplicate()));
  EXPECT_EQ(drain_eventfd(call), 0u) << "the first one has nothing to say yet";
  handover.take_over();
  EXPECT_TRUE(eventually([&] { return drain_eventfd(call) == 1; }));
}

/// Takes O_NONBLOCK off and fills the counter, so that who writes to it waits for ever.
void stuff(const Fd& event) {
  const uint64_t most = UINT64_MAX - 1;
  (void)drain_eventfd(event);
  EXPECT_EQ(::write(event.get(), &most, sizeof(most)), ssize_t{sizeof(most)});
  EXPECT_EQ(::fcntl(event.get(), F_SETFL, 0), 0);
}

TEST(VhostUserBackend, EventsThatABackEndFillsHoldNobodyUp) {
  Script script;
  std::mutex mutex;
  std::vector<Fd> stuffed;  // guarded by mutex
  script.instead = [&](ScriptedPeer&, const VhostUserMessage& message) {
    const bool event = message.request == VHOST_USER_SET_VRING_KICK ||
                       message.request == VHOST_USER_SET_VRING_CALL;
    if (event && !message.fds.empty()) {
      stuff(message.fds.front());
      std::lock_guard lock(mutex);
      stuffed.push_back(std::move(*message.fds.front().duplicate()));
    }
    return false;
  };
  Handover handover(script);
  handover.set_up_ring(0, {}, std::move(*make_eventfd()));
  // Both events are signalled now, while the peer has them, and again for its successor.
  handover.take_over();
  std::promise<void> runs;
  handover.talk->backend().reset([&] { runs.set_value(); });
  auto done = runs.get_future();
  EXPECT_EQ(done.wait_for(20s), std::future_status::ready) << "the loop waits for an event";
  std::lock_guard lock(mutex);
  for (const Fd& event : stuffed) (void)drain_eventfd(event);  // lets go of who waits
  EXPECT_EQ(stuffed.size(), 4u);
}

/// A backend with a driver, whose back-ends come and go.
struct Succession {
  Succession() {
    VhostUserOptions wanted = options();
    wanted.disconnected = [this](const Error&) {
      lost = true;
      return AfterLoss::kAwaitAnother;
    };
    auto [ours, theirs] = socket_pair();
    first.emplace(std::move(theirs), EchoOptions());
    auto backend = VhostUserBackend::create(control.loop(), std::move(ours), wanted);
    CHECK(backend.has_value());
    vhost = backend->get();
    rig.emplace(Rig::attach(std::move(*backend), {.max_queue_size = 16}));
  }
  void end_first() {
    first.reset();
    ASSERT_TRUE(eventually([&] { return lost.load(); }));
  }
  Result<void> reconnect(Fd socket) {
    std::promise<Result<void>> done;
    vhost->reconnect(std::move(socket), [&](Result<void> result) { done.set_value(result); });
    return done.get_future().get();
  }
  void expect_echo(std::string_view text) {
    const RigToken token = rig->driver(0).send({readable(text), writable(text.size())});
    EXPECT_EQ(rig->driver(0).wait_used(token).bytes, readable(text).bytes);
  }

  LoopThread control;
  std::optional<EchoServer> first;
  std::atomic<bool> lost = false;
  VhostUserBackend* vhost = nullptr;
  std::optional<Rig> rig;
};

TEST(VhostUserBackend, GoesOnWithAnotherBackEnd) {
  Succession all;
  for (int i = 0; i < 21; ++i) all.expect_echo("abc");
  all.end_first();
  const RigToken waiting = all.rig->driver(0).send({readable("later"), writable(5)});
  auto [ours, theirs] = socket_pair();
  EchoServer second(std::move(theirs), EchoOptions());
  const auto done = all.reconnect(std::move(ours));
  ASSERT_TRUE(done.has_value()) << done.error().what();
  EXPECT_EQ(all.rig->driver(0).wait_used(waiting).bytes, readable("later").bytes);
  for (int i = 0; i < 21; ++i) all.expect_echo("def");
  EXPECT_FALSE(all.rig->needs_reset());
  all.rig->reset();
  all.expect_echo("ghi");
  all.rig.reset();
}

TEST(VhostUserBackend, WaitsForAnotherBackEndInAReset) {
  Succession all;
  all.expect_echo("abc");
  all.end_first();
  std::promise<void> done;
  std::promise<void> stopped;
  all.vhost->get_vring_base(1, [&](RingPosition) { stopped.set_value(); });
  all.vhost->reset([&] { done.set_value(); });
  auto future = done.get_future();
  EXPECT_EQ(future.wait_for(30ms), std::future_status::timeout) << "something may be in flight";
  auto [ours, theirs] = socket_pair();
  EchoServer second(std::move(theirs), EchoOptions());
  ASSERT_TRUE(all.reconnect(std::move(ours)).has_value());
  ASSERT_EQ(future.wait_for(30s), std::future_status::ready);
  ASSERT_EQ(stopped.get_future().wait_for(30s), std::future_status::ready);
  all.rig->reset();
  all.expect_echo("def");
  all.rig.reset();
}

TEST(VhostUserBackend, SaysWhatAnotherBackEndLacks) {
  Succession all;
  all.end_first();
  {
    auto [ours, theirs] = socket_pair();
    ScriptedPeer poor(std::move(theirs), {});
    const auto done = all.reconnect(std::move(ours));
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().what(),
              "echo0: the vhost-user back-end that should take over lacks the features 0x30000000");
  }
  {
    auto [ours, theirs] = socket_pair();
    ScriptedPeer small(std::move(theirs), {.features = ~uint64_t{0}, .queues = 1});
    const auto done = all.reconnect(std::move(ours));
    ASSERT_FALSE(done.has_value());
    EXPECT_THAT(done.error().what(), HasSubstr("has 1 queues"));
  }
  {
    auto [ours, theirs] = socket_pair();
    theirs = Fd();
    EXPECT_FALSE(all.reconnect(std::move(ours)).has_value());
  }
  auto [ours, theirs] = socket_pair();
  EchoServer good(std::move(theirs), EchoOptions());
  ASSERT_TRUE(all.reconnect(std::move(ours)).has_value());
  all.expect_echo("abc");
  all.rig.reset();
}

TEST(VhostUserBackend, NeedsAResetWhenThereIsNoOther) {
  Succession all;
  all.end_first();
  std::promise<void> stopped;
  all.vhost->get_vring_base(0, [&](RingPosition) { stopped.set_value(); });
  EXPECT_FALSE(all.rig->needs_reset());
  all.vhost->give_up();
  EXPECT_TRUE(all.rig->wait_needs_reset());
  ASSERT_EQ(stopped.get_future().wait_for(30s), std::future_status::ready);
  EXPECT_FALSE(all.reconnect(Fd()).has_value());
  all.rig.reset();
}

}  // namespace
}  // namespace crosvm
