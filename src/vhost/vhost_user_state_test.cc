#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <future>
#include <thread>

#include "vhost/conformance/scripted_peer.h"
#include "vhost/conformance/threads.h"
#include "vhost/vhost_test_frontend.h"
#include "vhost/vhost_user_backend.h"
#include "virtio/device_state.h"
#include "virtio/ring_abi.h"

// The state of a device, handed over by a back-end and given to another.

namespace crosvm {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr uint64_t kFeatures = uint64_t{1} << VIRTIO_F_VERSION_1;
constexpr uint64_t kNoFd = kVhostUserVringNoFd;

/// One end of a pipe for the back-end, and the other.
struct Pipe {
  Pipe() {
    ::signal(SIGPIPE, SIG_IGN);
    std::array<int, 2> ends{};
    CHECK(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0);
    reader = Fd(ends[0]);
    writer = Fd(ends[1]);
  }
  Fd reader;
  Fd writer;
};

EchoOptions echo() { return {.queue_sizes = {16, 16}}; }

class Frontend : public VhostTestFrontend {
 public:
  Frontend() : VhostTestFrontend(echo()) { negotiate(kFeatures); }
  uint64_t begin(uint32_t direction, Fd pipe, uint32_t phase = 0) {
    send(VHOST_USER_SET_DEVICE_STATE_FD,
         VhostUserDeviceState{.direction = direction, .phase = phase}, std::move(pipe));
    const auto answer = receive();
    CHECK(answer && answer->is_reply() && answer->fds.empty());
    return answer->payload_as<uint64_t>().value_or(99);
  }
  std::optional<uint64_t> check() { return ask(VHOST_USER_CHECK_DEVICE_STATE); }
  void write_config(std::string_view text) {
    VhostUserMessage message = vhost_user_message(
        VHOST_USER_SET_CONFIG,
        VhostUserConfigHeader{.offset = 0, .size = static_cast<uint32_t>(text.size()), .flags = 0});
    for (const char c : text) message.add(c);
    send(std::move(message));
    turn();
  }
  std::string read_config() {
    VhostUserMessage message = vhost_user_message(
        VHOST_USER_GET_CONFIG, VhostUserConfigHeader{.offset = 0, .size = 8, .flags = 0});
    message.payload.resize(message.payload.size() + 8);
    send(std::move(message));
    const auto answer = receive();
    CHECK(answer && answer->payload.size() == sizeof(VhostUserConfigHeader) + 8);
    return {reinterpret_cast<const char*>(answer->payload.data()) + sizeof(VhostUserConfigHeader),
            8};
  }
  std::vector<std::byte> save() {
    Pipe pipe;
    CHECK(begin(kVhostUserStateSave, std::move(pipe.writer)) == kNoFd);
    std::vector<std::byte> all(4096);
    size_t size = 0;
    for (;;) {
      turn(2);
      const ssize_t got = ::read(pipe.reader.get(), all.data() + size, all.size() - size);
      if (got == 0) break;
      if (got > 0) size += static_cast<size_t>(got);
    }
    all.resize(size);
    return all;
  }
  /// What CHECK_DEVICE_STATE says.
  uint64_t load(std::span<const std::byte> bytes) {
    Pipe pipe;
    CHECK(begin(kVhostUserStateLoad, std::move(pipe.reader)) == kNoFd);
    CHECK(::write(pipe.writer.get(), bytes.data(), bytes.size()) ==
          static_cast<ssize_t>(bytes.size()));
    pipe.writer = {};
    return check().value_or(99);
  }
};

TEST(VhostUserServerState, MovesToAnotherDevice) {
  Frontend from;
  from.write_config("abcdefgh");
  const auto state = from.save();
  EXPECT_EQ(from.check(), 0u);
  Frontend to;
  EXPECT_EQ(to.load(state), 0u);
  EXPECT_EQ(to.read_config(), "abcdefgh");
}

TEST(VhostUserServerState, AnAnswerWaitsForTheEnd) {
  Frontend from;
  from.write_config("12345678");
  const auto state = from.save();
  Frontend to;
  Pipe pipe;
  EXPECT_EQ(to.begin(kVhostUserStateLoad, std::move(pipe.reader)), kNoFd);
  to.send(vhost_user_message(VHOST_USER_CHECK_DEVICE_STATE));
  for (const std::byte byte : state) {
    ASSERT_EQ(::write(pipe.writer.get(), &byte, 1), 1);
    to.turn(2);
  }
  EXPECT_FALSE(to.receive());
  pipe.writer = {};
  const auto answer = to.receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->payload_as<uint64_t>(), 0u);
  EXPECT_EQ(to.read_config(), "12345678");
}

TEST(VhostUserServerState, WhatIsNoStateChangesNothing) {
  Frontend frontend;
  frontend.write_config("original");
  auto state = frontend.save();
  EXPECT_EQ(frontend.check(), 0u);
  EXPECT_NE(frontend.load({}), 0u);
  EXPECT_NE(frontend.load(std::span(state).first(state.size() - 1)), 0u);
  for (size_t i = 0; i < 40; ++i) {
    if (i >= 16 && i < 24) continue;  // the features come below
    auto other = state;
    other[i] ^= std::byte{0x10};
    EXPECT_NE(frontend.load(other), 0u) << i;
  }
  state[16 + 1] = std::byte{0x80};  // a feature that the device does not have
  EXPECT_NE(frontend.load(state), 0u);
  EXPECT_EQ(frontend.read_config(), "original");
}

TEST(VhostUserServerState, AStateWithoutEndIsAnError) {
  Frontend frontend;
  Pipe pipe;
  ASSERT_EQ(frontend.begin(kVhostUserStateLoad, std::move(pipe.reader)), kNoFd);
  const std::vector<std::byte> part(64 << 10);
  size_t written = 0;
  while (written <= DeviceState::kMostBytes + (1 << 20)) {
    const ssize_t put = ::write(pipe.writer.get(), part.data(), part.size());
    if (put < 0 && errno == EPIPE) break;
    if (put > 0) written += static_cast<size_t>(put);
    frontend.turn(2);
  }
  EXPECT_LE(written, DeviceState::kMostBytes + (1 << 20)) << "nobody reads it any more";
  EXPECT_NE(frontend.check().value_or(0), 0u);
  EXPECT_TRUE(frontend.gone().empty());
}

TEST(VhostUserServerState, AFrontEndThatDoesNotReadWaitsAlone) {
  Frontend frontend;
  Pipe pipe;
  // Filled, so that nothing more goes in.
  const std::vector<std::byte> part(4096);
  while (::write(pipe.writer.get(), part.data(), part.size()) > 0) {
  }
  ASSERT_EQ(frontend.begin(kVhostUserStateSave, std::move(pipe.writer)), kNoFd);
  Pipe second;
  EXPECT_NE(frontend.begin(kVhostUserStateSave, std::move(second.writer)) & 0xff, 0u);
  EXPECT_EQ(frontend.ask(VHOST_USER_GET_QUEUE_NUM), 2u);
  pipe.reader = {};
  EXPECT_NE(frontend.check().value_or(0), 0u) << "nobody took it";
  EXPECT_FALSE(frontend.save().empty());
}

TEST(VhostUserServerState, AResetGivesUp) {
  Frontend frontend;
  Pipe pipe;
  ASSERT_EQ(frontend.begin(kVhostUserStateLoad, std::move(pipe.reader)), kNoFd);
  frontend.send(vhost_user_message(VHOST_USER_CHECK_DEVICE_STATE));
  EXPECT_FALSE(frontend.receive());
  frontend.send(vhost_user_message(VHOST_USER_RESET_DEVICE));
  const auto answer = frontend.receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->request, uint32_t{VHOST_USER_CHECK_DEVICE_STATE});
  EXPECT_NE(answer->payload_as<uint64_t>(), 0u);
}

TEST(VhostUserServerState, RequestsThatCannotBeAreRefused) {
  Frontend frontend;
  const auto error = [](uint64_t answer) { return (answer & 0xff) != 0 && (answer & kNoFd) != 0; };
  EXPECT_NE(frontend.check().value_or(0), 0u) << "nothing was handed over";
  EXPECT_TRUE(error(frontend.begin(2, std::move(Pipe().writer))));
  EXPECT_TRUE(error(frontend.begin(kVhostUserStateSave, std::move(Pipe().writer), 1)));
  EXPECT_TRUE(error(frontend.begin(kVhostUserStateSave, {})));
  Fd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_TRUE(error(frontend.begin(kVhostUserStateSave, std::move(file))))
      << "it cannot be watched";
  frontend.send(frontend.memory_table());
  frontend.add_driver(false);
  frontend.start_ring(0, 0);
  EXPECT_TRUE(error(frontend.begin(kVhostUserStateSave, std::move(Pipe().writer))));
  frontend.send(VHOST_USER_GET_VRING_BASE, VhostUserVringState{.index = 0, .num = 0});
  ASSERT_TRUE(frontend.receive());
  EXPECT_FALSE(frontend.save().empty());
}

// ---- the front-end

VhostUserOptions options() {
  return {.name = "echo0",
          .device_type = 0xffff,
          .max_queue_size = 256,
          .config_length = 8,
          .stop_patience = 1s};
}

/// A backend with a server, or a scripted peer, behind it.
struct Talk {
  explicit Talk(std::optional<ScriptedPeer::Script> script = {}) {
    auto [ours, theirs] = socket_pair();
    if (script) {
      script->protocol_features |= vhost_user_bit(VHOST_USER_PROTOCOL_F_DEVICE_STATE);
      peer.emplace(std::move(theirs), std::move(*script));
    } else {
      server.emplace(std::move(theirs), echo());
    }
    made = VhostUserBackend::create(control.loop(), std::move(ours), options());
    CHECK(made.has_value());
  }
  Result<std::vector<std::byte>> save() {
    auto told = std::make_shared<std::promise<Result<std::vector<std::byte>>>>();
    (*made)->save_state([told](auto result) { told->set_value(std::move(result)); });
    return told->get_future().get();
  }
  Result<void> load(std::vector<std::byte> state) {
    auto told = std::make_shared<std::promise<Result<void>>>();
    (*made)->load_state(std::move(state), [told](auto result) { told->set_value(result); });
    return told->get_future().get();
  }
  LoopThread control;
  std::optional<ScriptedPeer> peer;
  std::optional<EchoServer> server;
  Result<std::unique_ptr<VhostUserBackend>> made = fail(Error::invalid("not made"));
};

TEST(VhostUserBackendState, GoesFromOneBackEndToTheOther) {
  Talk from;
  (*from.made)->set_config(0, std::vector<std::byte>(8, std::byte{7}));
  const auto state = from.save();
  ASSERT_TRUE(state.has_value()) << state.error().what();
  Talk to;
  EXPECT_TRUE(to.load(*state).has_value());
  const auto again = to.save();
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(*again, *state);
  const auto refused = to.load({std::byte{1}});
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().what(),
              HasSubstr("echo0: the vhost-user back-end answers CHECK_DEVICE_STATE with an error"));
  EXPECT_TRUE(to.load(*state).has_value()) << "it goes on after an error";
}

ScriptedPeer::Script answering(uint32_t request, std::vector<std::byte> payload) {
  ScriptedPeer::Script script;
  script.instead = [=](ScriptedPeer& peer, const VhostUserMessage& message) {
    if (message.request == request) peer.send_message(ScriptedPeer::copy(message, payload));
    return message.request == request;
  };
  return script;
}

/// Of a back-end that wants another way for its state than it was given.
ScriptedPeer::Script offering(Fd way) {
  ScriptedPeer::Script script;
  script.instead = [way = std::make_shared<Fd>(std::move(way))](ScriptedPeer& peer,
                                                                const VhostUserMessage& message) {
    if (message.request == VHOST_USER_CHECK_DEVICE_STATE) {
      peer.send_message(ScriptedPeer::value(message, 0));
      return true;
    }
    if (message.request != VHOST_USER_SET_DEVICE_STATE_FD) return false;
    auto answer = ScriptedPeer::value(message, 0);
    answer.fds.push_back(std::move(*way));
    peer.send_message(std::move(answer));
    return true;
  };
  return script;
}

TEST(VhostUserBackendState, TakesTheWayThatTheBackEndPrefers) {
  Pipe pipe;
  Talk talk(offering(std::move(pipe.reader)));
  ASSERT_EQ(::write(pipe.writer.get(), "abc", 3), 3);
  pipe.writer = {};
  const auto state = talk.save();
  ASSERT_TRUE(state.has_value()) << state.error().what();
  EXPECT_EQ(*state, (std::vector{std::byte{'a'}, std::byte{'b'}, std::byte{'c'}}));
}

/// The state of a back-end that never comes to its end, in bytes or in time.
TEST(VhostUserBackendState, DoesNotWaitForEver) {
  Pipe silent;
  Talk slow(offering(std::move(silent.reader)));
  EXPECT_THAT(slow.save().error().what(), HasSubstr("does not come to its end"));
  Pipe pipe;
  Talk endless(offering(std::move(pipe.reader)));
  std::thread writer([&pipe] {
    ASSERT_EQ(::fcntl(pipe.writer.get(), F_SETFL, 0), 0);
    const std::vector<std::byte> part(64 << 10);
    while (::write(pipe.writer.get(), part.data(), part.size()) > 0) {
    }
  });
  EXPECT_THAT(endless.save().error().what(), HasSubstr("has more than 16777216 bytes"));
  writer.join();
}

TEST(VhostUserBackendState, SaysWhatABackEndRefuses) {
  const auto number = [](uint64_t value) { return vhost_user_message(1, value).payload; };
  Talk refuses(answering(VHOST_USER_SET_DEVICE_STATE_FD, number(0x101)));
  EXPECT_THAT(
      refuses.save().error().what(),
      HasSubstr("echo0: the vhost-user back-end answers SET_DEVICE_STATE_FD with an error"));
  Talk file(offering(Fd(::open("/dev/null", O_RDWR | O_CLOEXEC))));
  EXPECT_THAT(file.save().error().what(), HasSubstr("way for its state is no pipe"));
  Talk strange(answering(VHOST_USER_SET_DEVICE_STATE_FD, std::vector<std::byte>(3)));
  EXPECT_THAT(strange.save().error().what(), HasSubstr("its vhost-user back-end is gone"));
  EXPECT_THAT(strange.load({}).error().what(), HasSubstr("it has no back-end now"));
}

TEST(VhostUserBackendState, NeedsTheProtocolFeature) {
  LoopThread control;
  auto [ours, theirs] = socket_pair();
  ScriptedPeer peer(std::move(theirs), {});
  auto made = VhostUserBackend::create(control.loop(), std::move(ours), options());
  ASSERT_TRUE(made.has_value());
  std::promise<std::string> told;
  (*made)->save_state([&](auto result) { told.set_value(result.error().what()); });
  EXPECT_THAT(told.get_future().get(),
              HasSubstr("echo0: its vhost-user back-end cannot hand over its state"));
}

}  // namespace
}  // namespace crosvm
